"""Commands: they parse, call, print and exit; nothing else does."""
