"""The read-only tree by inode: look up, list, read; no FUSE in it."""
