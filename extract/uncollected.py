"""Without the garbage collector: for libraries that copy by the thousand and make few cycles.

SQLMesh copies syntax trees (collecting among them took a fifth of its time), Great Expectations its
expectations. To pass over what is left of them takes 0.3 s once more, in a task's process for
nothing: it is about to end.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection meanwhile; none afterwards either where there was none before."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def never_collected() -> None:
    """No collection from here on, in a process that ends with what it is about to do."""
    gc.disable()
