"""What is expensive is made once for all workers of a run, and each gets a copy of its own."""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def made_once(tmp_path_factory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """(a folder of this worker, what `make` returned): `make(folder)` fills the folder, by the
    first worker that asks; what it returns must survive pickle."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent  # of all workers of the run
    folder, known = shared / f"once-{name}", shared / f"once-{name}.pickle"
    with (shared / f"once-{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not known.exists():
            folder.mkdir()
            known.write_bytes(pickle.dumps(make(folder)))
    mine = tmp_path_factory.mktemp(name) / "var"
    shutil.copytree(folder, mine)
    return mine, pickle.loads(known.read_bytes())
