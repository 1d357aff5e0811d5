"""Ledgerhouse: a warehouse for crypto books, from landed API responses to the published copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ledgerhouse.publish.dataframe import files, frame

    __version__: str

__all__ = ["__version__", "files", "frame"]


def __getattr__(name: str) -> Any:
    """What is imported when it is asked for: DAG files import this package and need none of it."""
    if name == "__version__":  # pyproject.toml has it, and nobody else
        from importlib.metadata import version

        return version("ledgerhouse")
    if name in __all__:
        from ledgerhouse.publish import dataframe

        return getattr(dataframe, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
