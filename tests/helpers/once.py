"""What is expensive is made once for all workers and modules of a run."""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]
) -> tuple[Path, Any]:
    """(the folder `name` as `make` fills it, what `make` returned, which must survive pickle).

    The folder is common to all: read only, so a test that writes in one copies it.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of this run, common to its workers
    folder, draft, known = root / name, root / f"{name}.draft", root / f"{name}.pickle"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(draft, ignore_errors=True)  # of a worker that failed at it
            draft.mkdir()
            known.write_bytes(pickle.dumps(make(draft)))
            draft.rename(folder)
    return folder, pickle.loads(known.read_bytes())
