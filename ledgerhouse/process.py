"""Settings of this process while it works: quiet loggers, and no garbage collection.

The collector is off for libraries that copy objects by the thousand and make few cycles: SQLMesh
copies syntax trees (collecting among them took a fifth of its time), Great Expectations its
expectations. A last collection takes 0.3 s more, for nothing in a task's process, which is about
to end.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*names: str, level: int = logging.WARNING) -> Iterator[None]:
    """A block in which the loggers `names` log nothing below `level`; afterwards, also after an
    error, their levels are as before."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level_before in zip(loggers, before):
            logger.setLevel(level_before)


@contextmanager
def gc_paused() -> Iterator[None]:
    """A block without garbage collection; none afterwards either where there was none before."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def gc_off() -> None:
    """Turn garbage collection off, in a process that ends with what it is about to do."""
    gc.disable()
