"""Making repositories: a directory in, a signed revision out, and a server for it.

``transaction`` tells the order of a publication. Before it come ``scan`` (what is
there) and ``nesting`` (which directories get a catalog of their own); it uses
``contents`` and ``chunker`` for files, ``catalogs`` for catalogs, ``tags``, ``reflog``
and ``keys``, and everything ends in ``layout`` and ``objects``, the directory that a
web server serves. ``server`` is such a web server.
"""
