"""The program that ``apptainer --fusemount`` starts: it serves a given device.

``handover`` is what it is told by file, ``device`` what it is given open, and
``server`` what it does. docs/adr/0031 tells why.
"""
