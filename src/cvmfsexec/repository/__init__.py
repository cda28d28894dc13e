"""One revision of one repository: which root is believed, and its catalogs.

``revision`` decides on a root catalog, ``catalog_tree`` opens catalogs below it on
demand, ``lookup`` answers questions by path, ``objects`` says what to fetch for what.
"""
