"""The sources: one file per API. A new source is one file here, and its twin in `sandbox/`.

A module of this folder is a source when it has a `SOURCE`; nothing else lists them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from extract.core.datasets import DATASETS
from extract.core.source import Source


def names() -> list[str]:
    """Names of the sources in this folder, without importing them."""
    return sorted(
        f.stem
        for folder in __path__
        for f in Path(folder).glob("*.py")
        if not f.stem.startswith("_")
    )


def get(name: str) -> Source:
    """The source called `name`; ValueError with the known ones where there is none."""
    if name not in names():
        raise ValueError(
            f"unknown source {name!r}; known: {', '.join(names())}. A new one is a "
            "file in extract/sources/"
        )
    source: Source = import_module(f"extract.sources.{name}").SOURCE
    unknown = set(source.mappings) - set(DATASETS)
    if unknown:
        raise ValueError(f"source {name} maps to unknown datasets {sorted(unknown)}")
    return source


def all_sources() -> dict[str, Source]:
    return {name: get(name) for name in names()}
