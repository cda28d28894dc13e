"""One revision of one repository: which root is believed, and its catalogs.

``revision`` decides on a root catalog, ``catalog_tree`` opens catalogs below it on
demand, each in its ``slot``, ``lookup`` answers questions by path, ``objects`` says
what to fetch for what. ``early`` fetches while a revision is being verified,
``foresight`` and ``itinerary`` while a walk is on its way to the next catalog.
"""
