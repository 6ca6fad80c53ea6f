"""The data directories of earlier formats in ``tests/recorded`` (made by `record_directory`)."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "recorded"
NAMES = tuple(sorted(file.stem for file in FOLDER.glob("*.json")))


def unpack(name: str, data_dir: Path) -> Path:
    """Lay the directory out as its member left it; return ``data_dir``."""
    with tarfile.open(FOLDER / f"{name}.tar.xz", "r:xz") as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            file = data_dir / member.name
            for folder in reversed(file.relative_to(data_dir).parents):
                (data_dir / folder).mkdir(mode=0o700, exist_ok=True)
            file.write_bytes(stream.read())
            file.chmod(0o600)
    return data_dir


def told(name: str) -> dict[str, Any]:
    """Return what its member served at its end: ``revision``, ``rows``, ``leases``, ``hash``."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found
