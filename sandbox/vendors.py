"""The vendors: one folder of `sandbox/` each. A folder is one when it has a `VENDOR`; nothing else
lists them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import sandbox
from sandbox.vendor import Vendor


def all_vendors() -> dict[str, Vendor]:
    """Name → vendor, by name; ValueError where a folder and its vendor disagree about the name."""
    found = {}
    for name in sorted(
        path.parent.name
        for folder in sandbox.__path__
        for path in Path(folder).glob("*/__init__.py")
    ):
        vendor = getattr(import_module(f"sandbox.{name}"), "VENDOR", None)
        if vendor is None:
            continue
        if vendor.name != name:
            raise ValueError(f"the vendor in sandbox/{name}/ calls itself {vendor.name!r}")
        found[name] = vendor
    return found


def in_demo() -> list[Vendor]:
    return [vendor for vendor in all_vendors().values() if vendor.in_demo]
