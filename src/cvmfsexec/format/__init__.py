"""Bytes to values and back: the repository format, with no input or output."""
