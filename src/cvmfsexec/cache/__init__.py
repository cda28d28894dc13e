"""Objects on local disk, named by content hash, and what is remembered beside them.

``store`` declares what every store can do; ``directory`` keeps objects in the
original client's layout, below a limit for all processes (``quota``, ``ledger``),
``memory`` in this process. ``breadcrumb`` remembers the newest revision that was
verified.
"""
