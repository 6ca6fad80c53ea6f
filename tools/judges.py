"""Builds the real etcd programs that judge ours.  ``python tools/judges.py``, or ``make judges``.

Each version is built from its Go modules (``go.etcd.io/etcd/{server,etcdctl,etcdutl}/v3``) by a
small module of our own that requires them, since their ``replace`` lines forbid ``go install``.
Programs go into a cache outside of the tree, once; real 3.4, which only members of mixed clusters
may be, is taken out of Debian's package.

    $ETCDTW_JUDGES, or ~/.cache/etcdtw/judges/
        v3.7.3/{etcd,etcdctl,etcdutl}   v3.6.16/...   v3.5.35/...   v3.4/etcd

What cannot be had is said in one line, and the tests that want it say so again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

VERSIONS: Final = ("v3.7.3", "v3.6.16", "v3.5.35")  # newest first; the first is *the* judge
DEBIAN: Final = "v3.4"
PACKAGES: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "etcdctl": "go.etcd.io/etcd/etcdctl/v3",
    "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
}
BUILD_TIMEOUT_S: Final = 900.0  # of one command: a cold cache fetches and compiles everything


def cache() -> Path:
    """Return the folder that holds a folder a version."""
    named = os.environ.get("ETCDTW_JUDGES")
    return Path(named) if named else Path.home() / ".cache" / "etcdtw" / "judges"


def program(version: str, name: str) -> Path | None:
    """Return the path of ``name`` of ``version``; None where it was not built."""
    path = cache() / version / name
    return path if path.exists() else None


def build(version: str) -> None:
    """Build the three programs of ``version``; they appear in the cache together or not at all.

    Raises `subprocess.SubprocessError` when Go fails or takes longer than `BUILD_TIMEOUT_S`.
    """
    with tempfile.TemporaryDirectory(prefix="etcdtw-judge-") as folder:
        module = Path(folder)
        (module / "go.mod").write_text("module judge\n\ngo 1.24\n")
        built = module / "built"
        commands = [["go", "get", *(f"{path}@{version}" for path in PACKAGES.values())]]
        commands += [["go", "build", "-o", str(built / name), p] for name, p in PACKAGES.items()]
        for command in commands:
            # Output is kept for the exception alone: fetching prints a line a module.
            subprocess.run(
                command, cwd=module, check=True, capture_output=True, text=True,
                timeout=BUILD_TIMEOUT_S,
            )  # fmt: skip
        put_in_place(built, version)


def unpack_debian() -> None:
    """Take etcd 3.4 out of Debian's package ``etcd-server``; raises as `build` does."""
    with tempfile.TemporaryDirectory(prefix="etcdtw-judge-") as folder:
        # Without a sandbox user apt can write into the folder.
        fetch = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "etcd-server"]
        subprocess.run(
            fetch, cwd=folder, check=True, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
        )
        (package,) = Path(folder).glob("etcd-server_*.deb")
        built = Path(folder) / "built"
        subprocess.run(
            ["dpkg-deb", "-x", str(package), str(Path(folder) / "root")],
            check=True, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S,
        )  # fmt: skip
        built.mkdir()
        shutil.copy2(Path(folder) / "root" / "usr" / "bin" / "etcd", built / "etcd")
        told = subprocess.run(
            [built / "etcd", "--version"], check=True, capture_output=True, text=True
        ).stdout
        if not told.startswith("etcd Version: 3.4."):
            raise FileNotFoundError(f"Debian's etcd-server is not 3.4: {told.splitlines()[:1]}")
        put_in_place(built, DEBIAN)


def put_in_place(built: Path, version: str) -> None:
    """Move what was built into the cache by one rename; another run may have been faster."""
    cache().mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{version}-", dir=cache()))
    try:
        for path in built.iterdir():
            shutil.copy2(path, staged / path.name)
        staged.chmod(0o755)
        target = cache() / version
        if target.exists() and not all((target / name).exists() for name in os.listdir(built)):
            shutil.rmtree(target)
        if not target.exists():
            staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def reason(error: Exception) -> str:
    """Return the last line that says why, of Go or apt where they spoke."""
    told = getattr(error, "stderr", None) or str(error)
    lines = [line for line in str(told).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def main() -> int:
    """Build what is missing; 0 also when something cannot be had, which is said."""
    for version in VERSIONS:
        if all(program(version, name) for name in PACKAGES):
            print(f"judge {version}: in {cache() / version}", flush=True)
            continue
        print(f"judge {version}: being built from Go modules ...", flush=True)
        try:
            build(version)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"judge {version}: NOT HAD ({reason(error)})", flush=True)
    if program(DEBIAN, "etcd"):
        print(f"judge {DEBIAN}: in {cache() / DEBIAN}", flush=True)
        return 0
    try:
        unpack_debian()
        print(f"judge {DEBIAN}: taken from Debian's package", flush=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"judge {DEBIAN}: NOT HAD ({reason(error)}; apt-get update?)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
