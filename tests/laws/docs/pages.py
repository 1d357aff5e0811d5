"""The pages, their blocks and spans, and the tables they speak of."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BY_HAND = [page for page in PAGES if page.name != "reference.md"]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.M | re.S)
by_hand = pytest.mark.parametrize("page", BY_HAND, ids=lambda p: p.name)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def spans(page: Path) -> list[str]:
    """What stands in single backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text()))


@cache
def known() -> dict[str, set[str]]:
    """Columns by table, as reference.md lists them, and of the warehouse as it is made."""
    found: dict[str, set[str]] = {}
    for part in re.split(r"^### ", (ROOT / "docs/reference.md").read_text(), flags=re.M)[1:]:
        name = part.splitlines()[0]
        if re.fullmatch(r"(raw|ops|curated)\.\w+", name):
            found[name] = set(re.findall(r"^\| `(\w+)` \|", part, re.M))
    return found
