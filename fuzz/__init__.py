"""Fuzzing: every parser of outside bytes accepts, or raises one of our errors."""
