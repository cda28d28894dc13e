"""The client of one repository, put together from its configuration.

``assembly`` joins network, cache, trust and catalogs; ``mount_attributes`` are the
magic attributes that tell about all this; ``configuration_repository`` reads another
repository's configuration without mounting it.
"""
