"""Tables, properties and counters of catalogs and tag databases, as data.

Nothing runs here. What is written is put together from the columns below; what is read
also has to do with older files, see :mod:`cvmfsexec.catalog.statements`.

Source: docs/reference/repository-format.md, "Catalogs", "Statistics counters" and
"History (tag) database".
"""

SCHEMA = "2.5"
SCHEMA_REVISION = "7"  # the column mtimens, and all before it

CATALOG_COLUMNS = (
    "md5path_1",
    "md5path_2",
    "parent_1",
    "parent_2",
    "hardlinks",
    "hash",
    "size",
    "mode",
    "mtime",
    "mtimens",
    "flags",
    "name",
    "symlink",
    "uid",
    "gid",
    "xattr",
)
CHUNK_COLUMNS = ("md5path_1", "md5path_2", "offset", "size", "hash")
NESTED_COLUMNS = ("path", "sha1", "size")  # also of bind_mountpoints
PROPERTY_COLUMNS = ("key", "value")
STATISTICS_COLUMNS = ("counter", "value")

CREATE_PROPERTIES = (
    "CREATE TABLE properties (key TEXT, value TEXT,"
    " CONSTRAINT pk_properties PRIMARY KEY (key))"
)

CREATE_CATALOG = (
    CREATE_PROPERTIES,
    "CREATE TABLE catalog"
    " (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,"
    " hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER,"
    " mtimens INTEGER, flags INTEGER, name TEXT, symlink TEXT, uid INTEGER,"
    " gid INTEGER, xattr BLOB,"
    " CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2))",
    "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)",
    "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER,"
    " size INTEGER, hash BLOB,"
    " CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),"
    " FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog (md5path_1, md5path_2))",
    "CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER,"
    " CONSTRAINT pk_nested_catalogs PRIMARY KEY (path))",
    "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER,"
    " CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path))",
    "CREATE TABLE statistics (counter TEXT, value INTEGER,"
    " CONSTRAINT pk_statistics PRIMARY KEY (counter))",
)
"""All statements that make an empty catalog of the newest schema, in order."""

CATALOG_TABLES = (
    "catalog",
    "chunks",
    "nested_catalogs",
    "bind_mountpoints",
    "properties",
    "statistics",
)


class Property:
    """Keys of the table ``properties``; every value is text."""

    SCHEMA = "schema"
    SCHEMA_REVISION = "schema_revision"
    REVISION = "revision"
    LAST_MODIFIED = "last_modified"
    PREVIOUS_REVISION = "previous_revision"
    ROOT_PREFIX = "root_prefix"  # nested catalogs only
    TTL = "TTL"  # this and the following: root catalogs only
    VOLATILE = "volatile"
    AUTHORISATION = "voms_authz"
    BRANCH = "branch"
    FQRN = "fqrn"  # tag databases only


SELF = "self_"
SUBTREE = "subtree_"

COUNTERS = (
    "regular",
    "symlink",
    "special",
    "dir",
    "nested",
    "chunked",
    "chunks",
    "file_size",
    "chunked_size",
    "xattr",
    "external",
    "external_file_size",
)
"""What is counted, in this catalog (``self_``) and in all below it (``subtree_``)."""

COUNTER_NAMES = tuple(
    scope + counter for scope in (SELF, SUBTREE) for counter in COUNTERS
)
"""The 24 keys of the table ``statistics``."""

HISTORY_SCHEMA = "1.0"
HISTORY_SCHEMA_REVISION = "3"

TAG_COLUMNS = (
    "name",
    "hash",
    "revision",
    "timestamp",
    "channel",
    "description",
    "size",
    "branch",
)
BRANCH_COLUMNS = ("branch", "parent", "initial_revision")
DEFAULT_BRANCH = ("", None, 0)
"""The row that the table ``branches`` always has."""

TRUNK = "trunk"
TRUNK_PREVIOUS = "trunk-previous"

CREATE_HISTORY = (
    CREATE_PROPERTIES,
    "CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER,"
    " CONSTRAINT pk_branch PRIMARY KEY (branch),"
    " FOREIGN KEY (parent) REFERENCES branches (branch),"
    " CHECK ((branch <> '') OR (parent IS NULL)),"
    " CHECK ((branch = '') OR (parent IS NOT NULL)))",
    "CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER,"
    " channel INTEGER, description TEXT, size INTEGER, branch TEXT,"
    " CONSTRAINT pk_tags PRIMARY KEY (name),"
    " FOREIGN KEY (branch) REFERENCES branches (branch))",
    "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER,"
    " CONSTRAINT pk_hash PRIMARY KEY (hash))",
)
"""All statements that make an empty tag database of the newest schema, in order."""

HISTORY_TABLES = ("tags", "branches", "recycle_bin", "properties")
