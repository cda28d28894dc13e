"""Order of files, what is taken over from each, and what is refused."""

import os
import time
from pathlib import Path

import pytest

from cvmfsexec.configuration import evaluate as evaluate_module
from cvmfsexec.configuration.evaluate import (
    INJECTED,
    Configuration,
    begin,
    complete_name,
    evaluate,
)
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError
from tests.support.configuration import (
    CONFIG_REPOSITORY,
    extract_config_repository,
    make_dist,
    write_files,
)

FQRN = "software.example.org"

# The shapes of packaged and distributed files, in small.
DEFAULT_CONF = """\
# Don't edit here.
CVMFS_CACHE_BASE=/var/lib/cvmfs
CVMFS_QUOTA_LIMIT=4000
CVMFS_TIMEOUT=5
CVMFS_TIMEOUT_DIRECT=10
CVMFS_STRICT_MOUNT=no
CVMFS_NFILES=131072
CVMFS_SHARED_CACHE=yes
CVMFS_CHECK_PERMISSIONS=yes
CVMFS_CLAIM_OWNERSHIP=yes
CVMFS_KEYS_DIR=/etc/cvmfs/keys
CVMFS_PROXY_RESET_AFTER=300
CVMFS_HOST_RESET_AFTER=1800
CVMFS_USE_GEOAPI=no

# Leave these alone.
if [ "x$CVMFS_BASE_ENV" = "x" ]; then
  readonly CVMFS_USER=cvmfs
  readonly CVMFS_MOUNT_DIR=/cvmfs
  readonly CVMFS_RELOAD_SOCKETS=/var/run/cvmfs
  readonly CVMFS_BASE_ENV=1
fi
"""
CONFIG_CONF = "CVMFS_CONFIG_REPOSITORY=config.example.org\n"
PACKAGED_DOMAIN_CONF = """\
if [ "$CVMFS_CONFIG_REPO_DEFAULT_ENV" != "" ]; then
  # Only used without the configuration repository.
  return
fi
CVMFS_SERVER_URL="http://packaged/cvmfs/@fqrn@"
CVMFS_KEYS_DIR=/etc/cvmfs/keys/example.org
"""
CR_DEFAULT_CONF = """\
if [ -z "$CVMFS_PAC_URLS" ]; then
  if [ $((${RANDOM:-0} % 2)) = 2 ]; then
    CVMFS_PAC_URLS="http://wpad/wpad.dat"
  else
    CVMFS_PAC_URLS="http://grid-wpad/wpad.dat;http://wpad/wpad.dat"
  fi
fi
CVMFS_CONFIG_REPO_DEFAULT_ENV=1
"""
CR_COMMON_CONF = """\
if [ "$CVMFS_CLIENT_PROFILE" = "single" ]; then
  if [ "$CVMFS_HTTP_PROXY" = "" ]; then
    CVMFS_HTTP_PROXY="auto;DIRECT"
  fi
fi
if [ -z "$CVMFS_USE_CDN" ]; then
  if [ "$CVMFS_HTTP_PROXY" = "DIRECT" ] || [ "$CVMFS_HTTP_PROXY" = "auto;DIRECT" ]; then
    CVMFS_USE_CDN=yes
  fi
fi
if [ "$CVMFS_USE_CDN" != "yes" ] && [ "$CVMFS_CLIENT_PROFILE" != "custom" ]; then
  CVMFS_FALLBACK_PROXY="http://backup1:3126;http://backup2:3126"
fi
CVMFS_NOT_NOTICED=1
"""
CR_DOMAIN_CONF = """\
# Here so that they are noticed.
CVMFS_USE_CDN="$CVMFS_USE_CDN"
CVMFS_HTTP_PROXY="$CVMFS_HTTP_PROXY"
CVMFS_FALLBACK_PROXY="$CVMFS_FALLBACK_PROXY"
. ../common.conf

if [ "$CVMFS_USE_CDN" = "yes" ]; then
    CVMFS_SERVER_URL="http://cdn1/cvmfs/@fqrn@;http://cdn2:8080/cvmfs/@fqrn@"
else
    CVMFS_SERVER_URL="http://s1:8000/cvmfs/@fqrn@;http://s2:8000/cvmfs/@fqrn@"
fi
CVMFS_KEYS_DIR=$CVMFS_MOUNT_DIR/$CVMFS_CONFIG_REPOSITORY/etc/cvmfs/keys/example.org
CVMFS_CACHE_BASE="$CVMFS_CACHE_BASE/osgstorage"
"""

PACKAGED = {
    "default.conf": DEFAULT_CONF,
    "default.d/50-config.conf": CONFIG_CONF,
    "domain.d/example.org.conf": PACKAGED_DOMAIN_CONF,
}
DISTRIBUTED = {
    "default.conf": CR_DEFAULT_CONF,
    "common.conf": CR_COMMON_CONF,
    "domain.d/example.org.conf": CR_DOMAIN_CONF,
}


def configured(
    tmp_path: Path,
    files: dict[str, str],
    distributed: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
) -> Configuration:
    root = make_dist(tmp_path, files)
    directory = None
    if distributed is not None:
        directory = str(tmp_path / "repository")
        write_files(tmp_path / "repository" / "etc/cvmfs", distributed)
    return evaluate(FQRN, root, directory, environment or {"PATH": os.environ["PATH"]})


def test_later_files_override_earlier_ones_in_the_original_order(
    tmp_path: Path,
) -> None:
    local = [
        "default.conf",
        "default.d/10.conf",
        "default.d/20.conf",
        "default.local",
        "domain.d/example.org.conf",
        "domain.d/example.org.local",
        "config.d/software.example.org.conf",
        "config.d/software.example.org.local",
    ]
    distributed = [
        "default.conf",
        "domain.d/example.org.conf",
        "config.d/software.example.org.conf",
    ]
    files = {name: f'CVMFS_ORDER="$CVMFS_ORDER {name}"\n' for name in local}
    files["default.d/10.conf"] += CONFIG_CONF
    ours = {name: f'CVMFS_ORDER="$CVMFS_ORDER CR/{name}"\n' for name in distributed}
    order = configured(tmp_path, files, ours).get("CVMFS_ORDER").split()
    assert order == [
        *local[:3],
        "CR/default.conf",
        "default.local",
        "CR/domain.d/example.org.conf",
        *local[4:6],
        "CR/config.d/software.example.org.conf",
        *local[6:],
    ]


def test_values_carry_the_last_file_that_assigns_them(tmp_path: Path) -> None:
    files = PACKAGED | {"default.local": "CVMFS_TIMEOUT=7\n"}
    result = configured(tmp_path, files, DISTRIBUTED)
    etc = result.root.etc
    assert result.source("CVMFS_TIMEOUT") == f"{etc}/default.local"
    assert result.source("CVMFS_TIMEOUT_DIRECT") == f"{etc}/default.conf"
    distributed = "/cvmfs/config.example.org/etc/cvmfs"
    assert result.source("CVMFS_PAC_URLS") == f"{distributed}/default.conf"
    # Assigned in a branch that is not taken: recorded with the value it has.
    assert result.source("CVMFS_SERVER_URL") == f"{etc}/domain.d/example.org.conf"
    assert "http://s1:" in result.get("CVMFS_SERVER_URL")
    assert f"{etc}/default.local" in result.files_read


def test_another_file_can_stand_for_the_settings_of_the_site(tmp_path: Path) -> None:
    root = make_dist(tmp_path, {"default.local": "CVMFS_TIMEOUT=7\nCVMFS_NFILES=1\n"})
    other = tmp_path / "options"
    other.write_text("CVMFS_TIMEOUT=8\n")
    root = root._replace(given_site_defaults=str(other))
    result = begin(FQRN, root, {}).finish(None)
    assert result.get("CVMFS_TIMEOUT") == "8"
    assert result.source("CVMFS_TIMEOUT") == str(other)
    assert result.source("CVMFS_NFILES") == INJECTED


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (
            "CVMFS_CLIENT_PROFILE=single\n",
            {
                "CVMFS_HTTP_PROXY": "auto;DIRECT",
                "CVMFS_USE_CDN": "yes",
                "CVMFS_FALLBACK_PROXY": "",
                "CVMFS_SERVER_URL": f"http://cdn1/cvmfs/{FQRN};"
                f"http://cdn2:8080/cvmfs/{FQRN}",
            },
        ),
        (
            "CVMFS_HTTP_PROXY='http://p1:3128|http://p2:3128'\n",
            {
                "CVMFS_HTTP_PROXY": "http://p1:3128|http://p2:3128",
                "CVMFS_USE_CDN": "",
                "CVMFS_FALLBACK_PROXY": "http://backup1:3126;http://backup2:3126",
                "CVMFS_SERVER_URL": f"http://s1:8000/cvmfs/{FQRN};"
                f"http://s2:8000/cvmfs/{FQRN}",
            },
        ),
    ],
    ids=["laptop", "site"],
)
def test_real_shapes_give_what_their_authors_meant(
    tmp_path: Path, local: str, expected: dict[str, str]
) -> None:
    result = configured(tmp_path, PACKAGED | {"default.local": local}, DISTRIBUTED)
    assert {name: result.get(name) for name in expected} == expected
    assert result.get("CVMFS_CACHE_BASE") == "/var/lib/cvmfs/osgstorage"
    assert not result.is_set("CVMFS_NOT_NOTICED")
    keys = "/cvmfs/config.example.org/etc/cvmfs/keys/example.org"
    assert result.get("CVMFS_KEYS_DIR") == keys
    assert result.resolve_path(keys) == str(
        tmp_path / "repository/etc/cvmfs/keys/example.org"
    )


def test_without_shell_or_only_by_shell_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = PACKAGED | {"default.local": "CVMFS_CLIENT_PROFILE=single\n"}
    mixed = configured(tmp_path, files, DISTRIBUTED)
    monkeypatch.setattr(evaluate_module, "evaluate_plainly", lambda *_: None)
    by_shell = configured(tmp_path, files, DISTRIBUTED)
    assert list(mixed.items()) == list(by_shell.items())


def test_packaged_files_step_in_when_the_config_repository_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = configured(tmp_path, PACKAGED)
    assert result.get("CVMFS_SERVER_URL") == f"http://packaged/cvmfs/{FQRN}"
    assert result.config_repository == CONFIG_REPOSITORY
    assert result.repository is None
    assert "without the configuration repository" in caplog.text


def test_missing_but_required_config_repository_is_an_error(tmp_path: Path) -> None:
    files = PACKAGED | {"default.local": "CVMFS_CONFIG_REPO_REQUIRED=yes\n"}
    with pytest.raises(ConfigurationError, match=r"required .* config\.example\.org"):
        configured(tmp_path, files)


def test_config_repository_is_final_after_the_defaults(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = PACKAGED | {"default.local": "CVMFS_CONFIG_REPOSITORY=evil.example.org\n"}
    result = configured(tmp_path, files, DISTRIBUTED)
    assert result.get("CVMFS_CONFIG_REPOSITORY") == CONFIG_REPOSITORY
    assert result.config_repository == CONFIG_REPOSITORY
    assert "evil.example.org has no effect" in caplog.text


def test_config_repository_may_be_repeated_to_itself(tmp_path: Path) -> None:
    files = PACKAGED | {"default.local": CONFIG_CONF}
    assert configured(tmp_path, files, {}).config_repository == CONFIG_REPOSITORY


def test_config_repository_does_not_configure_itself(tmp_path: Path) -> None:
    root = make_dist(tmp_path, PACKAGED)
    evaluation = begin(CONFIG_REPOSITORY, root, {})
    assert evaluation.config_repository is None
    assert evaluation.finish(str(tmp_path)).repository is None


def test_bad_name_of_a_config_repository_is_refused(tmp_path: Path) -> None:
    root = make_dist(tmp_path, {"default.conf": "CVMFS_CONFIG_REPOSITORY=../x\n"})
    with pytest.raises(ConfigurationError, match="not a repository name"):
        evaluate(FQRN, root, None, {})


def test_readonly_holds_within_one_file_only(tmp_path: Path) -> None:
    files = {
        "default.conf": "readonly CVMFS_USER=cvmfs\n",
        "default.local": "CVMFS_USER=me\n",
    }
    assert configured(tmp_path, files).get("CVMFS_USER") == "me"


def test_environment_is_seen_but_secrets_are_not(tmp_path: Path) -> None:
    text = 'A="$CVMFS_FROM_USER $HOME $USER [$SECRET]"\nB=$CVMFS_FQRN/$CVMFS_ARCH\n'
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/h",
        "USER": "me",
        "SECRET": "s",
        "CVMFS_FROM_USER": "u",
    }
    result = configured(tmp_path, {"default.local": text}, None, environment)
    assert result.get("A") == "u /h me []"
    assert result.get("B") == f"{FQRN}/{os.uname().machine}"


def test_any_configured_name_is_seen_by_later_files(tmp_path: Path) -> None:
    files = {"default.conf": "CONFVAR='a  b'\n", "default.local": 'X="$CONFVAR;c"\n'}
    assert configured(tmp_path, files).variables()["X"] == "a b;c"


def test_templates_are_replaced(tmp_path: Path) -> None:
    files = {"default.local": "CVMFS_SERVER_URL=http://s/@org@/@fqrn@/@proxy@\n"}
    url = configured(tmp_path, files).get("CVMFS_SERVER_URL")
    assert url == f"http://s/software/{FQRN}/@proxy@"


def test_files_and_log_are_set_unless_default_local_does(tmp_path: Path) -> None:
    result = configured(tmp_path, {"default.conf": "CVMFS_NFILES=1\n"})
    assert result.get("CVMFS_NFILES") != "1"
    assert result.source("CVMFS_NFILES") == INJECTED
    assert result.get("CVMFS_USYSLOG") == str(tmp_path / "log" / f"{FQRN}.log")


@pytest.mark.parametrize(
    "name", ["default.local", "domain.d/example.org.conf", f"config.d/{FQRN}.local"]
)
def test_site_and_later_files_override_what_is_set_here(
    tmp_path: Path, name: str
) -> None:
    result = configured(tmp_path, {name: "CVMFS_NFILES=1\nCVMFS_USYSLOG=/l\n"})
    assert result.get("CVMFS_NFILES") == "1"
    assert result.get("CVMFS_USYSLOG") == "/l"


def test_hidden_and_other_files_of_default_d_do_not_count(tmp_path: Path) -> None:
    files = {
        "default.d/.10.conf": "A=hidden\n",
        "default.d/20.conf~": "A=backup\n",
        "default.d/README": "A=readme\n",
        "default.d/30.conf/40.conf": "A=deeper\n",
    }
    assert not configured(tmp_path, files).is_set("A")


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    root = make_dist(tmp_path, {})
    (tmp_path / "dist/etc/cvmfs/default.local").symlink_to("default.local")
    with pytest.raises(ConfigurationError, match=r"cannot read .*default\.local"):
        evaluate(FQRN, root, None, {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("A=" + "x" * 70_000, "longer than"),
        ("A=\0\n", "NUL"),
        ("if [\nA=1\n", "cannot"),
    ],
    ids=["long", "NUL", "syntax"],
)
def test_bad_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        configured(tmp_path, {"default.local": text})
    assert "dist/etc/cvmfs/default.local" in str(caught.value)


@pytest.mark.parametrize("fqrn", ["software", "../x.y", "a..b", ".x.y", "a/b.c", ""])
def test_what_is_no_full_name_is_refused(tmp_path: Path, fqrn: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        begin(fqrn, make_dist(tmp_path, {}), {})


def test_short_name_gets_the_default_domain(tmp_path: Path) -> None:
    root = make_dist(
        tmp_path,
        {
            "default.conf": "CVMFS_DEFAULT_DOMAIN=cern.ch\n",
            "default.local": "CVMFS_DEFAULT_DOMAIN=example.org\n",
        },
    )
    assert complete_name("software", root, {}) == FQRN
    assert complete_name("atlas.cern.ch", root, {}) == "atlas.cern.ch"


def test_short_name_without_default_domain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CVMFS_DEFAULT_DOMAIN"):
        complete_name("software", make_dist(tmp_path, {}), {})


def test_fixture_repository_configures_another(tmp_path: Path) -> None:
    directory = extract_config_repository(tmp_path)
    root = make_dist(
        tmp_path,
        {
            "default.conf": DEFAULT_CONF,
            "default.d/60-example.conf": CONFIG_CONF,
            "default.local": "CVMFS_HTTP_PROXY=DIRECT\n",
        },
    )
    fqrn = "conformance.example.org"
    result = evaluate(fqrn, root, str(directory), {"PATH": os.environ["PATH"]})
    assert result.get("CVMFS_SERVER_URL") == f"http://127.0.0.1:8787/cvmfs/{fqrn}"
    assert result.get("CVMFS_CONFIG_REPO_MARKER") == "from-default.conf"
    assert result.get("CVMFS_CONFIG_REPO_REPO") == "from-config.d"
    assert not result.is_set("CVMFS_CONFIG_REPO_COMMON")  # only in a sourced file
    keys = result.path("CVMFS_KEYS_DIR")
    assert os.listdir(keys) == ["example.org.pub"]


def test_fixture_repository_obeys_the_local_choice_of_a_cdn(tmp_path: Path) -> None:
    directory = extract_config_repository(tmp_path)
    root = make_dist(
        tmp_path,
        {
            "default.d/60-example.conf": CONFIG_CONF,
            "default.local": "CVMFS_USE_CDN=yes\n",
        },
    )
    result = evaluate("x.example.org", root, str(directory), {})
    assert result.get("CVMFS_SERVER_URL") == "http://127.0.0.1:8788/cvmfs/x.example.org"


def test_typical_site_needs_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = PACKAGED | {"default.local": "CVMFS_HTTP_PROXY='http://p:3128;DIRECT'\n"}
    root = make_dist(tmp_path, files)
    directory = tmp_path / "repository"
    write_files(
        directory / "etc/cvmfs", {k: v for k, v in DISTRIBUTED.items() if "/" in k}
    )
    write_files(directory / "etc/cvmfs", {"common.conf": CR_COMMON_CONF})
    monkeypatch.setattr("cvmfsexec.configuration.shell.SHELL", "/nonexistent")
    monkeypatch.setattr(os, "posix_spawn", None)
    times = [_seconds(root, str(directory)) for _ in range(5)]
    assert min(times) < 0.005


def _seconds(root: ConfigurationRoot, directory: str) -> float:
    begin_s = time.perf_counter()
    evaluate(FQRN, root, directory, {})
    return time.perf_counter() - begin_s
