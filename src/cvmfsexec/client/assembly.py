"""A client put together: network, cache, trust, catalogs, and the view of files.

Make it after the last fork: its connections and threads belong to one process.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Self

from cvmfsexec import callers
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.catalog.history import Tag
from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.client.connections import external_network_settings, network_settings
from cvmfsexec.client.entry_attributes import entry_sources
from cvmfsexec.client.file_system_statistics import file_system_statistics
from cvmfsexec.client.mount_attributes import (
    MountAttributes,
    MountFacts,
    ServerGauges,
)
from cvmfsexec.client.ownership import UNMAPPED_ID, Identity, shown_id
from cvmfsexec.client.reading_ahead import ReadingAhead
from cvmfsexec.client.revision_change import Kernel, MountedRevisions
from cvmfsexec.client.storage import open_store
from cvmfsexec.client.updates import Updates
from cvmfsexec.configuration.blacklists import read_blacklists
from cvmfsexec.configuration.evaluate import Configuration
from cvmfsexec.configuration.keys import master_keys
from cvmfsexec.configuration.requirements import check_requirements
from cvmfsexec.configuration.settings import (
    CacheSettings,
    ClientSettings,
    MagicXattrVisibility,
    ViewSettings,
)
from cvmfsexec.fetch import Fetcher
from cvmfsexec.fetch.throttle import FailureThrottle
from cvmfsexec.format.blacklist import EMPTY_BLACKLIST, Blacklist
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.lookup import Location, PathLookup
from cvmfsexec.repository.revision import Revision, RevisionSelector
from cvmfsexec.trust.chain import TrustSettings, check_revision
from cvmfsexec.vfs.attributes import FilesystemStatistics
from cvmfsexec.vfs.descriptors import DescriptorCache
from cvmfsexec.vfs.extended_attributes import (
    NO_PROTECTION,
    ExtendedAttributes,
    Protection,
)
from cvmfsexec.vfs.file_system import RepositoryFileSystem
from cvmfsexec.vfs.presentation import Presentation

if TYPE_CHECKING:
    from cvmfsexec.client.gauges import GaugeBoard, MeasuredServer
    from cvmfsexec.client.talk_socket import Answer, TalkSocket


class User(NamedTuple):
    """For whom the client works.

    Attributes:
        uid: The user's number, here and in published entries.
        gid: The user's group, likewise.
        environment: Values for variables in link targets, proxies, certificates.
    """

    uid: Identity
    gid: Identity
    environment: Mapping[str, str]

    def numbers_outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the numbers that a user and a group of the mount have outside of it.

        All that is known is whose the mount is.
        """
        return (
            self.uid.host if uid == self.uid.namespace else uid,
            self.gid.host if gid == self.gid.namespace else gid,
        )

    @classmethod
    def of_this_process(cls, environment: Mapping[str, str]) -> Self:
        """Return the user of a process outside of any namespace of ours."""
        uid, gid = Identity.outside(os.getuid()), Identity.outside(os.getgid())
        return cls(uid, gid, environment)


class Client:
    """One repository, ready to be read. Close it, or use it in a ``with``.

    Attributes:
        fqrn: Its name.
        settings: How it was configured.
        trust: What it is verified with.
        updates: What is shown of it, and when something newer is.
        selector: Decides on revisions.
        store: Keeps its objects.
        fetcher: Opens them.
        http: Downloads them.
        tree: Its catalogs.
        lookup: Its entries by path.
        presentation: How they look.
    """

    def __init__(
        self,
        configuration: Configuration,
        user: User,
        store: ObjectStore | None = None,
        *,
        is_endless: bool = True,
    ) -> None:
        """Connect and decide on a revision.

        Args:
            configuration: Of the repository.
            user: For whom.
            store: Where objects are kept; the configured cache if ``None``.
            is_endless: Whether to try forever if ``CVMFS_FAILOVER_INDEFINITELY`` says
                so.

        Raises:
            CvmfsError: It is not configured, cannot be reached, or is not believed.
        """
        check_requirements(configuration)
        self.fqrn = configuration.fqrn
        self.settings = ClientSettings.from_configuration(configuration)
        places = self.settings.cache
        network = network_settings(configuration, user.environment, places)
        if not is_endless:
            policy = network.failover._replace(is_indefinite=False)
            network = network._replace(failover=policy)
        self.http = _http_client(network, places, f"geo.{self.fqrn}")
        self._external = _external_client(configuration, user.environment, places)
        self.store = store or open_store(places, user.uid.host)
        self.fetcher = Fetcher(self.http, self.store, self._external)
        self.trust = _trust_settings(configuration, self.settings)
        self.selector = RevisionSelector(
            self.http,
            self.fetcher,
            self.trust,
            self.settings.cache.workspace,
            remembers=store is None,
        )
        revision = self.selector.select(self.settings.revision)
        self._ahead: ReadingAhead | None = None
        if configuration.boolean("CVMFS_READ_AHEAD", default=True):
            self._ahead = ReadingAhead(self.fetcher, self.http, network)
        self.tree = CatalogTree(
            self.fetcher,
            revision.root_catalog,
            revision.root_catalog_size,
            has_alternative_path=revision.has_alternative_path,
            foresight=self._ahead.catalogs if self._ahead else None,
        )
        self.lookup = PathLookup(self.tree)
        self._user = user
        self._revisions = MountedRevisions(
            self.tree,
            self.selector,
            lambda: _blacklist(self.settings),
            self._admit,
        )
        self.updates = Updates(
            self._checked(revision),
            self._revisions,
            is_automatic=self.settings.revision.auto_update,
            max_ttl_s=self.settings.revision.max_ttl_s,
        )
        self.presentation = _presentation(configuration, self.settings.view, user)
        self._protection = _protection(self.settings.view, user.gid)
        self._talk_socket: TalkSocket | None = None
        self._statfs = file_system_statistics(
            self.tree, self.store, self.settings.cache.quota_limit_mb
        )
        self._attributes = MountAttributes(
            MountFacts(
                self.fqrn,
                self.updates,
                self.tree,
                self.fetcher,
                self.http,
                self._external,
                (network.timeout_s, network.timeout_direct_s),
                self.trust.master_keys,
                self._ahead.counts if self._ahead else dict,
                self.store.quota,
            )
        )

    def file_system(self) -> RepositoryFileSystem:
        """Return the repository as inodes, for a kernel."""
        file_system = RepositoryFileSystem(
            self.tree,
            DescriptorCache(
                FailureThrottle(self.fetcher.open, sleep=callers.pause).open,
                discard=self.fetcher.discard,
            ),
            self.presentation,
            ExtendedAttributes(
                self._attributes.table(),
                entry_sources(self.tree, self.lookup, self.store, self._external),
                _lists_magic(self.settings.view.magic_xattrs),
                self._protection,
            ),
            self._statfs,
            self._ahead.look_ahead if self._ahead else None,
        )
        for http in (self.http, self._external):
            if http is not None and http.headers is not None:
                http.headers.path_of = file_system.path_of
                http.headers.number_outside = self._user.numbers_outside
        return file_system

    @property
    def external_http(self) -> HttpClient | None:
        """Downloads external files, if there are any servers for them."""
        return self._external

    @property
    def revision(self) -> Revision:
        """What is shown at this moment."""
        return self.updates.revision

    def watch(self, gauges: ServerGauges) -> None:
        """Let magic attributes tell what the server of kernel requests counts."""
        self._attributes.gauges = gauges

    def gauges(self, server: "MeasuredServer") -> "GaugeBoard":
        """Return all that is counted, here and by the server of kernel requests."""
        from cvmfsexec.client.gauges import GaugeBoard

        return GaugeBoard(self._attributes.facts, server, self._statfs)

    def follow(self, file_system: RepositoryFileSystem, kernel: Kernel) -> None:
        """Show newer revisions in a file system, and tell a kernel of them.

        When that happens is ``updates``' business; it has to be begun.
        """
        self._revisions.serve(file_system, kernel)
        self.tree.missed = self.updates.hurry

    def hear(self, socket: "TalkSocket", prepare: "Callable[[], Answer]") -> None:
        """Let the mount be talked to until the client is closed.

        Args:
            socket: Where.
            prepare: Returns what answers.
        """
        socket.hear(prepare)
        self._attributes.talk_socket = socket.path
        self._talk_socket = socket

    def attribute(self, name: str) -> str | None:
        """Return a magic attribute of the mount; ``None`` if there is none.

        Args:
            name: Without ``user.``.
        """
        value = self._attributes.table().get(f"user.{name}".encode())
        return None if value is None else value()

    def statfs(self) -> FilesystemStatistics:
        """Return what ``df`` shows of the mount."""
        return self._statfs()

    def tags(self) -> list[Tag]:
        """Return the named revisions of the repository."""
        return self.selector.tags()

    def close(self) -> None:
        """Let go of catalogs and cache."""
        if self._talk_socket is not None:
            self._talk_socket.close()
        self.updates.close()
        if self._ahead is not None:
            self._ahead.close()
        self.tree.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self, revision: Revision) -> Revision:
        """Open the root catalog, so that what is wrong with it shows now.

        Of a root hash, only the catalog itself knows its revision; of a tag, nobody has
        asked yet whether its revision is allowed here.
        """
        catalog = self.tree.catalog(self.tree.root)
        self.lookup.root()
        if not revision.number:
            revision = revision._replace(number=catalog.revision)
        check_revision(revision.number, self.selector.trust)
        if catalog.is_volatile and self.store.quota is not None:
            self.store.quota.stores_volatile = True
        self._admit(catalog)
        return revision

    def _admit(self, catalog: Catalog) -> None:
        """See that the user may have what a root catalog protects."""
        if catalog.authorisation:
            from cvmfsexec.client.authorisation import authorise

            clients = (self.http, self._external) if self._external else (self.http,)
            authorise(
                self.fqrn,
                catalog.authorisation,
                clients,
                self._user.uid,
                self._user.environment,
            )


def _external_client(
    configuration: Configuration,
    environment: Mapping[str, str],
    places: CacheSettings,
) -> HttpClient | None:
    settings = external_network_settings(configuration, environment, places)
    if settings is None:
        return None
    return _http_client(settings, places, f"geo-external.{configuration.fqrn}")


def _http_client(
    settings: NetworkSettings, places: CacheSettings, geo_file: str
) -> HttpClient:
    client = HttpClient(settings, sleep=callers.pause)
    if settings.uses_geo_api:
        from cvmfsexec.network.geo import GeoOrdering

        GeoOrdering(client, settings, places.workspace, geo_file).start()
    return client


def _trust_settings(
    configuration: Configuration, settings: ClientSettings
) -> TrustSettings:
    # A root hash is trusted input itself; nothing is left to be signed.
    is_hash = settings.revision.root_hash is not None
    keys = () if is_hash else master_keys(configuration)
    return TrustSettings(configuration.fqrn, keys, _blacklist(settings))


def _blacklist(settings: ClientSettings) -> Blacklist:
    blacklist = EMPTY_BLACKLIST
    for text in read_blacklists(settings.blacklist_paths):
        blacklist = blacklist.merge(Blacklist.parse(text))
    return blacklist


def _presentation(
    configuration: Configuration, view: ViewSettings, user: User
) -> Presentation:
    variables = {**user.environment, **configuration.variables()}
    variables["CVMFS_FQRN"] = configuration.fqrn
    variables.setdefault("CVMFS_ARCH", os.uname().machine)
    uid_map, gid_map = view.uid_map, view.gid_map
    claims = view.claim_ownership
    return Presentation(
        variables=variables,
        shown_uid=shown_id(user.uid, uid_map and uid_map.local, claims=claims),
        shown_gid=shown_id(user.gid, gid_map and gid_map.local, claims=claims),
        is_world_readable=view.world_readable,
    )


def _protection(view: ViewSettings, gid: Identity) -> Protection:
    """Return which attributes are for some groups only, and as whom these ask."""
    if not view.protected_xattrs:
        return NO_PROTECTION
    asking_as = shown_id(gid, None, claims=False)
    return Protection(
        frozenset(name.encode() for name in view.protected_xattrs),
        frozenset(asking_as(number) for number in (0, *view.privileged_gids))
        - ({UNMAPPED_ID} if gid.is_confined else frozenset()),
    )


def _lists_magic(visibility: MagicXattrVisibility) -> Callable[[Location], bool]:
    if visibility is MagicXattrVisibility.ROOT_ONLY:
        return lambda location: not location.path
    is_always = visibility is MagicXattrVisibility.ALWAYS
    return lambda _location: is_always
