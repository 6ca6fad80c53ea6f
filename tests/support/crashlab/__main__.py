"""Power losses by the thousand: ``python -m tests.support.crashlab [IMAGES] [SEED]``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

from tests.support.crashlab.check import Model, check_image
from tests.support.crashlab.recording import build_recorder, cuts, parse, record_run

IMAGES = 2000
IMAGES_PER_RUN = 200


def main(arguments: list[str]) -> int:
    """Record runs, cut and check images; return 1 at the first breach."""
    images = int(arguments[0]) if arguments else IMAGES
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    checked = 0
    with tempfile.TemporaryDirectory() as top:
        library = build_recorder(Path(top))
        while checked < images:
            folder = Path(top) / str(seed)
            folder.mkdir()
            status, log = record_run(library, folder, seed, 150)
            assert status == 0, status
            model = Model()
            for marks, contents in cuts(parse(log), IMAGES_PER_RUN, Random(seed)):
                try:
                    check_image(folder / "image", marks, contents, model)
                except Exception as error:
                    print(f"seed {seed}, image {checked}: {error!r}")
                    return 1
                checked += 1
            print(f"{checked} images right", flush=True)
            seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
