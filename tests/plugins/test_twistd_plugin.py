"""The plugin as twistd sees it, in this process and in one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker, ServiceMaker
from twisted.plugin import getPlugins

from etcdtw.plugins.server import Options, makeService
from tests.support.ports import free_port

TWISTD = Path(sys.executable).parent / "twistd"
CLIENT_PORT, PEER_PORT, METRICS_PORT = (free_port() for _ in range(3))
READY_WITHIN_S = 20


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


def test_twistd_knows_the_plugin() -> None:
    makers = [maker for maker in getPlugins(IServiceMaker) if isinstance(maker, ServiceMaker)]
    assert ("etcdtw", "etcdtw.plugins.server") in [(one.tapname, one.module) for one in makers]


def test_options_hold_the_configuration() -> None:
    assert parsed("--name=m1", "-pre-vote=false").config.name == "m1"
    assert "--heartbeat-interval" in parsed().getUsage()


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["--help"], 0, ""),
        (["--version"], 0, ""),
        (["--nope"], 2, "flag provided but not defined: -nope\n"),
        (["nope"], 1, '"error":"\'nope\' is not a valid flag"'),
    ],
)
def test_parsing_ends_the_process_as_etcd_does(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, error: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*arguments)
    assert caught.value.code == status
    captured = capsys.readouterr()
    assert error in captured.err
    assert bool(captured.out) == (status == 0)


def test_a_log_that_cannot_be_opened_ends_the_start(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as caught:
        makeService(parsed("--log-outputs", str(tmp_path / "none" / "log")))
    assert caught.value.code == 1
    assert '"error":"--log-outputs: [Errno 2]' in capsys.readouterr().err


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
    return subprocess.run(
        [str(TWISTD), *arguments],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.integration
def test_twistd_prints_our_help_and_version(tmp_path: Path) -> None:
    shown = run("etcdtw", "--help", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--initial-cluster-token <text> (default etcd-cluster)" in shown.stdout
    assert run("etcdtw", "--version", cwd=tmp_path).stdout.startswith("etcdtw Version: ")
    assert "etcdtw" in run("--help", cwd=tmp_path).stdout


@pytest.mark.integration
def test_wrong_starts_have_etcds_statuses(tmp_path: Path) -> None:
    assert run("-n", "etcdtw", "--nope", cwd=tmp_path).returncode == 2
    refused = run("-n", "etcdtw", cwd=tmp_path, ETCD_ELECTION_TIMEOUT="1")
    assert refused.returncode == 1
    record = json.loads(refused.stderr)
    assert (record["level"], record["msg"]) == ("fatal", "failed to verify flags")
    assert "--election-timeout[1ms]" in record["error"]


def member_flags(data_dir: Path) -> list[str]:
    client, peer = f"http://127.0.0.1:{CLIENT_PORT}", f"http://127.0.0.1:{PEER_PORT}"
    return [
        "--name=m1",
        f"--data-dir={data_dir}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--listen-metrics-urls=http://127.0.0.1:{METRICS_PORT}",
    ]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(TWISTD), "-n", "--pidfile=", "etcdtw", *member_flags(tmp_path / "m1.etcd")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
    with subprocess.Popen(
        command, cwd=tmp_path, env=kept, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def await_message(process: subprocess.Popen[str], message: str) -> None:
    """Read log lines until one has this message.  Every line must be JSON."""
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["msg"] == message:
            return
    raise AssertionError(f"the member ended with {process.wait()}")


@pytest.mark.integration
def test_member_says_when_it_is_ready_and_stops_on_sigterm(member: subprocess.Popen[str]) -> None:
    await_message(member, "ready to serve client requests")
    with urllib.request.urlopen(f"http://127.0.0.1:{CLIENT_PORT}/health") as answer:
        assert json.load(answer) == {"health": "true", "reason": ""}
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/readyz") as answer:
        assert answer.read() == b"ok\n"
    member.send_signal(signal.SIGTERM)
    assert member.wait(READY_WITHIN_S) == -signal.SIGTERM


@pytest.mark.integration
def test_member_shows_etcds_metrics(member: subprocess.Popen[str]) -> None:
    await_message(member, "ready to serve client requests")
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    assert "etcd_server_has_leader 1" in lines
    assert "etcd_server_is_leader 1" in lines
    assert "# TYPE etcd_server_health_success counter" in lines


@pytest.mark.integration
def test_member_that_cannot_open_its_data_ends_with_status_1(tmp_path: Path) -> None:
    data_dir = tmp_path / "open"
    data_dir.mkdir()
    data_dir.chmod(0o755)
    ended = run("-n", "--pidfile=", "etcdtw", *member_flags(data_dir), cwd=tmp_path)
    assert ended.returncode == 1
    said = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [(one["level"], one["msg"]) for one in said] == [("fatal", "the member cannot start")]
    assert "has mode 0755" in said[0]["error"]


@pytest.mark.integration
def test_wheel_brings_the_plugin(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(copied_source(tmp_path / "source"))],
        check=True, timeout=120,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("etcdtw-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "twisted/plugins/etcdtw_plugin.py" in names
    assert "etcdtw/wire/descriptors.bin" in names
    assert "twisted/__init__.py" not in names
    assert "twisted/plugins/__init__.py" not in names


def copied_source(target: Path) -> Path:
    """Copy what a wheel is built from: building must leave nothing in the repository."""
    root = Path(__file__).parents[2]
    files = [root / name for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")]
    for folder in ("etcdtw", "twisted"):
        files += [path for path in (root / folder).rglob("*") if "__pycache__" not in path.parts]
    for path in files:
        if path.is_file():
            copy = target / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return target
