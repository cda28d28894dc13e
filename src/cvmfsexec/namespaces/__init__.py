"""A private place to run one command in: namespaces, root, processes, signals.

::

    supervisor                 what the user started; in no namespace of ours
    └── init                   first process of the namespaces; root in them
        ├── service            one file server for each repository
        ├── service
        └── payload            the user's command, again with the user's own uid and gid

Life hangs on this chain and on nothing else. Each process dies with its parent, and
with the last process the kernel takes the namespaces and every mount in them away.
Nothing is created on disk, so there is nothing that could be left behind.

``supervisor.run_session`` is the door; it is given a ``plan.SessionPlan``. To read,
in order: ``plan``, ``supervisor``, ``founder``, ``init``, ``root`` with ``steps``,
``services`` with ``service``, ``payload``; ``requests`` with ``desk`` for what is asked
from inside; ``meeting`` and ``join`` for commands that enter from outside; ``native``
for what the host has, ``scratch_image``; then ``signals``, ``descriptors``,
``descendants``, ``hints``.

Where namespaces may not mount, the host does: ``fusermount``, ``host_services``,
``host_place``; and ``daemon`` for mounts that outlive their command. Who clears away
after these is a ``keeper``.

All of it is single-threaded and belongs to the main thread. Only a service may start
threads, and only in its own process.
"""
