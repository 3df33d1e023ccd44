"""A folder that is whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import RunDirError, writing_to

FACTS_FILE = "export.json"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when all goes well, and is deleted when not.

    An earlier export of that name is replaced, and anything else refused. Raises RunDirError, also for an OSError
    inside.
    """
    if os.path.lexists(folder) and not (folder / FACTS_FILE).is_file():
        raise RunDirError(f"{folder}: is there already, and no earlier export; name another with -o")
    temp, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("tmp", "old"))
    try:
        with writing_to(folder):
            shutil.rmtree(temp, ignore_errors=True)
            temp.mkdir(parents=True)
            yield temp
            if folder.is_dir():
                folder.rename(old)
            temp.rename(folder)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
