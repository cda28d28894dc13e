"""What works here, what does not, and what to do about it: ``cvmfs doctor``.

Each module looks at one thing and returns findings; nothing is changed except by the
repairs that ``leftovers`` offers.
"""
