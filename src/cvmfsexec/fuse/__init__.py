"""The kernel's FUSE protocol: requests of the kernel to calls of a file system."""
