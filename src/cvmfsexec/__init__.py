"""CernVM-FS for everyone: repositories at ``/cvmfs`` without root.

Nothing is imported here: a start is measured in milliseconds, and each command
imports just what it runs. Where to begin reading: docs/explanation/architecture.md.
"""

__version__ = "5.0.0"
