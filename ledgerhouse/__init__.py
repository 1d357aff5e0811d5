"""Ledgerhouse: a warehouse for crypto books, from landed API responses to the published copy."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "__version__":  # pyproject.toml has it, and nobody else
        from importlib.metadata import version

        return version("ledgerhouse")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
