"""Tools without a mount: which repository configures another, and how it is named."""

import shutil
from pathlib import Path

import pytest

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.environment import load_parameters, open_client
from cvmfsexec.errors import ConfigurationError
from tests.support.cvmfs_command import CvmfsCommand
from tests.support.published import FQRN, PublishedRepository, publish_tree

CONFIG = "config.example.org"


class Site:
    """A dist that knows of a configuration repository and little else."""

    def __init__(self, home: Path) -> None:
        self.repository = publish_tree(home, {"file": b"content\n"})
        served = str(self.repository.output)
        self.configuring = self._publish_configuration(home, served)
        self.dist = home / "dist"
        etc = self.dist / "etc/cvmfs"
        files = {
            "default.d/50.conf": f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n",
            f"config.d/{CONFIG}.conf": f"CVMFS_SERVER_URL=file://{served}/@fqrn@\n"
            "CVMFS_HTTP_PROXY=DIRECT\n",
            "keys/one.pub": self.repository.master_key_pem.decode(),
            "keys/two.pub": self.configuring.master_key_pem.decode(),
        }
        for name, text in files.items():
            (etc / name).parent.mkdir(parents=True, exist_ok=True)
            (etc / name).write_text(text)

    def _publish_configuration(self, home: Path, served: str) -> PublishedRepository:
        domain = f"CVMFS_SERVER_URL=file://{served}/@fqrn@\n".encode()
        default = b"CVMFS_TIMEOUT=77\nCVMFS_HTTP_PROXY=DIRECT\n"
        return publish_tree(
            home,
            {
                "etc": {
                    "cvmfs": {
                        "default.conf": default,
                        "domain.d": {"example.org.conf": domain},
                    }
                }
            },
            CONFIG,
        )

    def add(self, text: str) -> None:
        with (self.dist / "etc/cvmfs/default.d/50.conf").open("a") as file:
            file.write(text)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_configuration_repository_brings_up_another(site: Site) -> None:
    with open_client(FQRN, str(site.dist)) as client:
        assert client.lookup.find(b"/file") is not None


def test_values_come_from_their_files_in_it(site: Site) -> None:
    parameters = load_parameters(FQRN, str(site.dist))
    assert parameters.get("CVMFS_TIMEOUT") == "77"
    source = parameters.source("CVMFS_TIMEOUT")
    assert source == f"/cvmfs/{CONFIG}/etc/cvmfs/default.conf"


def test_it_does_not_configure_itself(site: Site) -> None:
    assert load_parameters(CONFIG, str(site.dist)).get("CVMFS_TIMEOUT") == ""


def test_without_it_there_is_a_warning(
    site: Site, cvmfs: CvmfsCommand, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(site.configuring.directory)
    told = cvmfs("ls", "--dist", site.dist, FQRN)
    assert told.status == exit_codes.CONFIGURATION
    assert "unknown repository" in told.err
    assert f"the configuration repository {CONFIG} could not be read" in told.err
    assert f"{CONFIG}: no server has .cvmfspublished" in caplog.text


def test_what_is_configured_locally_works_without_it(
    site: Site, cvmfs: CvmfsCommand, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(site.configuring.directory)
    local = site.dist / "etc/cvmfs/default.local"
    local.write_text(
        f"CVMFS_SERVER_URL=file://{site.repository.output}/@fqrn@\n"
        "CVMFS_HTTP_PROXY=DIRECT\n"
    )
    assert cvmfs("ls", "--dist", site.dist, FQRN).lines == ["file"]
    assert "going on without the configuration repository" in caplog.text


def test_what_is_required_must_be_there(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(site.configuring.directory)
    site.add("CVMFS_CONFIG_REPO_REQUIRED=yes\n")
    with pytest.raises(ConfigurationError, match="required configuration repository"):
        load_parameters(FQRN, str(site.dist))
    assert "no server has .cvmfspublished" in caplog.text


def test_a_known_revision_of_it_is_used_offline(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    load_parameters(FQRN, str(site.dist))
    shutil.rmtree(site.configuring.directory)
    assert load_parameters(FQRN, str(site.dist)).get("CVMFS_TIMEOUT") == "77"
    assert "working offline with revision 1" in caplog.text


def test_a_short_name_is_completed(site: Site) -> None:
    site.add("CVMFS_DEFAULT_DOMAIN=example.org\n")
    assert load_parameters("test", str(site.dist)).fqrn == FQRN
    with open_client("test", str(site.dist)) as client:
        assert client.fqrn == FQRN
