"""What a site and a distribution say about a repository.

``locate`` finds the directory; ``evaluate`` reads its files in the original's order
with the original's shell semantics (``plain`` without a shell where that is provably
the same, else ``shell``); ``settings`` makes typed values of the result; ``keys`` and
``blacklists`` read the files it points to.
"""
