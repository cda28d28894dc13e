"""Why bytes are believed: pure decisions over bytes, keys, and a given time."""
