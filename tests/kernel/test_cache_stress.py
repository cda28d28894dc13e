"""Thirty-two sessions on a cache that is too small, while somebody does it every harm.

``CACHE_STRESS_S`` is for how long; ``CACHE_STRESS_SEED`` for what happens.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import cache_stress
from tests.support.cache_stress import LARGEST_BYTES, LIMIT_MB, content_of, paths
from tests.support.commands import client_dist, plain_environment
from tests.support.nginx import Nginx
from tests.support.published import Tree, publish_tree
from tests.support.sessions import ROOT, Caller, skip_unless_possible, wrap

pytestmark = pytest.mark.kernel

SECONDS = float(os.environ.get("CACHE_STRESS_S", "12"))
SEED = os.environ.get("CACHE_STRESS_SEED", "1")
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def tree() -> Tree:
    found: dict[str, dict[str, bytes]] = {}
    for path in paths():
        directory, _, name = path.partition("/")
        found.setdefault(directory, {".cvmfscatalog": b""})[name] = content_of(path)
    return found


def stress(dist: Path) -> dict[str, Any]:
    line = (sys.executable, cache_stress.__file__, str(dist), str(SECONDS), SEED)
    done = subprocess.run(
        wrap((*UNSHARE, *line), Caller.ORDINARY),
        capture_output=True,
        text=True,
        check=False,
        env={**plain_environment(), "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        timeout=SECONDS + 400,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_byte_is_right_and_the_limit_holds_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    skip_unless_possible(Caller.ORDINARY)
    probe = subprocess.run(
        wrap((*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"), Caller.ORDINARY),
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {probe.stderr.strip()}")
    repository = publish_tree(tmp_path_factory.mktemp("published"), tree())
    with (
        Nginx(repository.output) as origin,
        client_dist(
            origin.url,
            repository.master_key_pem,
            settings=f"CVMFS_QUOTA_LIMIT={LIMIT_MB}\n",
        ) as dist,
    ):
        seen = stress(dist)
    assert seen["wrong"] == {}
    assert seen["reads"] > cache_stress.FILES
    assert len(seen["harms"]) == 8
    assert seen["samples"] > 10
    assert seen["largest_sample_bytes"] > seen["limit_bytes"] // 2
    assert seen["largest_sample_bytes"] <= seen["limit_bytes"] + LARGEST_BYTES
    assert seen["least_surplus_bytes"] >= 0  # what the ledger says, above what there is
    assert seen["true_bytes"] <= seen["limit_bytes"]
    assert seen["left"] == []
    assert seen["after_all"]["cleanings"] > 0
    for checked in (seen["after_all"], seen["after_losses"], seen["mended"]):
        assert checked["fsck_status"] == 0, checked
        assert checked["used_bytes"] >= checked["true_bytes"], checked
    assert seen["mended"]["used_bytes"] == seen["mended"]["true_bytes"]
