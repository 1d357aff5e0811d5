"""Which batches the order of loads lists, without taking each line for what it says.

Every plan and every load asks whether a batch is missing. In five years loads.jsonl has 14,600
lines, 9.6 MB: reading them as records takes 0.18 s of CPU, this 0.04 s.
"""

from __future__ import annotations

import re
from pathlib import Path

from extract.core import sealed
from extract.fetch.landing import LOADS

BATCH = re.compile(rb'"batch_id":"([0-9a-f]+)"')


def batch_ids(root: Path) -> set[str] | None:
    """The ids of the batches that loads.jsonl lists; None where a line of it is not as it was
    written, or has no sum, as in 0.1: then landing.loads and landing.damaged_notes tell."""
    file, ids = Path(root) / LOADS, set[str]()
    if not file.exists():
        return ids
    for line in file.read_bytes().split(b"\n"):
        if line:
            if not sealed.is_intact(line) or not (match := BATCH.search(line)):
                return None
            ids.add(match[1].decode())
    return ids
