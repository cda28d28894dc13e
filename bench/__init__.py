"""Benchmarks: what users wait for, beside the same work on local disk."""
