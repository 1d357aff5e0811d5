"""This process: loggers kept quiet for a while, and work without the garbage collector.

The collector is off for libraries that copy by the thousand and make few cycles. SQLMesh copies syntax trees (collecting among them took a fifth of its time), Great Expectations its
expectations. To pass over what is left of them takes 0.3 s once more, in a task's process for
nothing: it is about to end.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*names: str, level: int = logging.WARNING) -> Iterator[None]:
    """Of the loggers `names` nothing below `level` is heard; afterwards their levels are as
    before, also by an error."""
    loggers = [logging.getLogger(name) for name in names]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(level)
    try:
        yield
    finally:
        for one, was in zip(loggers, before):
            one.setLevel(was)


@contextmanager
def gc_paused() -> Iterator[None]:
    """No collection meanwhile; none afterwards either where there was none before."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def gc_off() -> None:
    """No collection from here on, in a process that ends with what it is about to do."""
    gc.disable()
