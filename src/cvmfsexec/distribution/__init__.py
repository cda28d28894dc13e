"""What is sent to where there is nothing: the dist, and one file with everything.

``making`` makes a dist: packages are found (``sources``), got (``package_store``),
believed (``trusted_keys``, ``package_signature``), and their configuration is written
(``tree``). The client is this program itself.
"""
