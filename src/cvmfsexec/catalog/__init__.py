"""Catalogs and tag databases: SQLite files, read by clients, written by publishers.

``schema`` holds the tables as data, ``database`` opens a file that nobody need trust,
``statements`` evens out the differences between schemas, and ``reader`` and
``history`` give the rows their meaning.
"""
