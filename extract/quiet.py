"""Loggers that say more than anyone reads, kept quiet for a while and then as they were."""

from __future__ import annotations

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
