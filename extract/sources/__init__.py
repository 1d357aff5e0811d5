"""The sources: one file (or folder) per API. A new one is a file here, and its twin in `sandbox/`.

A module of this folder is a source when it has a `SOURCE`; nothing else lists them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from extract.core.datasets import DATASETS
from extract.core.source import Source


def names() -> list[str]:
    """Names of the sources in this folder, files and packages, without importing them."""
    return sorted(
        path.stem
        for folder in __path__
        for path in (
            *Path(folder).glob("*.py"),
            *(p.parent for p in Path(folder).glob("*/__init__.py")),
        )
        if not path.stem.startswith("_")
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
