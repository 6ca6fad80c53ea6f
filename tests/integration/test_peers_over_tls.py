"""Two members of ours as peers over TLS with client certificates, on real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ELECTION_S = 1.0


def test_streams_and_a_snapshot_pass_over_tls_and_the_reactor_stays_free(tmp_path: Path) -> None:
    ports = [str(free_port()), str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.two_peers", str(tmp_path), *ports],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["sent"] is found["same"] is True
    assert found["arrived"] == [500, 1000]
    assert found["failures"] == []
    # 40 MiB of snapshot were read, encrypted, decrypted and written meanwhile, in this process.
    assert found["gap_s"] < ELECTION_S
