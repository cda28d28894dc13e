"""Apptainer, or Singularity, run with repositories in its containers (mode 4).

``command_line`` reads what the user typed, ``program`` finds what runs containers,
``preparation`` configures and tries the repositories, and ``composition`` puts together
what is executed. What serves a mount is in ``fusemount``.
"""
