"""The view of a repository as files: inodes, attributes, content.

``attributes`` is the seam to whatever shows it; ``file_system`` implements it.
"""
