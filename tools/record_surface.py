"""Writes down what the judge has: flags of real etcd's own help, metrics of its own page, RPCs and
fields of its own descriptors, pages that it answers.

`make surface` refreshes `tests/recorded/surface/`, which tests compare ours with.  Facts alone are
kept: names, defaults, kinds, labels.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools import judges  # noqa: E402  # needs the path
from tools.surface_protocol import (  # noqa: E402
    CLIENT_PAGES,
    PEER_PAGES,
    descriptors_of,
    fields_of,
    pages_of,
    rpcs_of,
)

SURFACE: Final = ROOT / "tests" / "recorded" / "surface"
FLAGS: Final = SURFACE / "flags.txt"
METRICS: Final = SURFACE / "metrics.txt"
RPCS: Final = SURFACE / "rpcs.txt"
FIELDS: Final = SURFACE / "fields.txt"
PAGES: Final = SURFACE / "pages.txt"
UNDEFINED: Final = "flag provided but not defined"
START_S: Final = 15.0
START_TRIES: Final = 150
PUTS: Final = 30
"""Enough for a snapshot of Raft's with the flags below."""
_FLAG: Final = re.compile(r"^  --([\w-]+)(?: ('?)(.*)\2)?$")
_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ")
_LABEL: Final = re.compile(r'(\w+)="(?:[^"\\]|\\.)*"')


def flags_of(help_text: str) -> dict[str, str]:
    """Return each flag of the help with its default, as it stands there."""
    found: dict[str, str] = {}
    for line in help_text.splitlines():
        match = _FLAG.match(line)
        if match is not None:
            found.setdefault(match[1], match[3] or "")
    return found


def metrics_of(page: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return kind and names of labels of each metric of the page; ``le`` and its like left out."""
    kinds: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    name = ""
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name], labels[name] = kind, set()
        elif line and not line.startswith("#"):
            sample = _SAMPLE.match(line)
            assert sample is not None, line
            labels[name].update(_LABEL.findall(sample[2] or ""))
    return {
        name: (kind, tuple(sorted(labels[name] - {"le", "quantile"})))
        for name, kind in kinds.items()
    }


def is_defined(etcd: Path, flag: str) -> bool:
    """Whether the program knows a flag of its own help: 3.7 prints two that it has no more."""
    words = [str(etcd), f"--{flag}=x", "--no-such-flag-at-all"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=folder, timeout=START_S, check=False
        )
    return f"{UNDEFINED}: -{flag}" not in done.stderr + done.stdout


@contextmanager
def running(etcd: Path) -> Iterator[tuple[str, str]]:
    """Run a member; gives its client URL and its peer URL."""
    client, peer = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [
                str(etcd),
                f"--data-dir={folder}/d",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--metrics=extensive",
                f"--snapshot-count={PUTS // 2}",
                "--log-level=debug",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(START_TRIES):
                with suppress(OSError):
                    _get(f"{client}/health")
                    break
                time.sleep(0.1)
            yield client, peer
        finally:
            process.terminate()
            process.wait(START_S)


def page_of(etcd: Path, etcdctl: Path) -> str:
    """Return what a member shows that has done a little of everything."""
    with running(etcd) as (url, _):
        commands = [f"put k {number}" for number in range(PUTS)]
        commands += ["get k", f"compact {PUTS // 2}", "lease grant 60", "del k", "defrag"]
        for command in commands:
            subprocess.run(
                [str(etcdctl), f"--endpoints={url}", *command.split()],
                stdout=subprocess.DEVNULL,
                timeout=START_S,
                check=True,
            )
        _get(f"{url}/readyz")
        time.sleep(1.0)  # for the compaction and the snapshot
        return _get(f"{url}/metrics")


def protocol_lines(etcd: Path, version: str) -> dict[Path, list[str]]:
    """Return what the files say of RPCs, fields and pages."""
    files = descriptors_of(etcd)
    lines = {
        RPCS: [f"# methods of {version}: path, kind, request, response, paths in JSON\n"],
        FIELDS: [f"# fields of what methods of {version} take and give, and of what is in it\n"],
        PAGES: [f"# pages that a member of {version} knows at --log-level=debug: port, path\n"],
    }
    for rpc in rpcs_of(files.values()):
        words = (rpc.path, rpc.kind, rpc.request, rpc.response, ",".join(rpc.routes) or "-")
        lines[RPCS].append(" ".join(words) + "\n")
    for message, fields in fields_of(files.values()).items():
        lines[FIELDS] += [f"{message}.{name} {number}\n" for name, number in fields.items()]
    with running(etcd) as (client, peer):
        for port, url, paths in (("client", client, CLIENT_PAGES), ("peer", peer, PEER_PAGES)):
            lines[PAGES] += [f"{port} {path}\n" for path in pages_of(url, paths)]
    return lines


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=START_S) as answer:
        text: str = answer.read().decode()
        return text


def main() -> int:
    """Write both lists; 1 when there is no judge."""
    version = judges.VERSIONS[0]
    etcd, etcdctl = (judges.program(version, name) for name in ("etcd", "etcdctl"))
    if etcd is None or etcdctl is None:
        print(f"NO REAL ETCD {version}: `make judges`", file=sys.stderr)
        return 1
    SURFACE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([str(etcd), "--help"], capture_output=True, text=True, check=True)
    lines = [f"# flags that `etcd --help` of {version} names: name, default; ! it has no more\n"]
    for name, default in sorted(flags_of(done.stdout + done.stderr).items()):
        mark = "" if is_defined(etcd, name) else " !"
        lines.append(f"{name} {default!r}{mark}\n")
    FLAGS.write_text("".join(lines), encoding="utf-8")
    lines = [f"# metrics of one member of {version}, --metrics=extensive: name, kind, labels\n"]
    for name, (kind, labels) in sorted(metrics_of(page_of(etcd, etcdctl)).items()):
        lines.append(f"{name} {kind} {','.join(labels) or '-'}\n")
    METRICS.write_text("".join(lines), encoding="utf-8")
    for path, written in protocol_lines(etcd, version).items():
        path.write_text("".join(written), encoding="utf-8")
    print(f"{SURFACE.relative_to(ROOT)}/*.txt: of {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
