"""Spans [start, end) of anything that has an order and differences: days, dates, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Span = tuple[Any, Any]


def joined(spans: Iterable[Span]) -> list[Span]:
    """Those that touch or overlap as one, in order."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def closed(spans: Sequence[Span], gaps: int) -> list[Span]:
    """Disjoint spans in order, with the smallest `gaps` of the gaps between them closed."""
    smallest = sorted(range(1, len(spans)), key=lambda i: spans[i][0] - spans[i - 1][1])
    kept = sorted(smallest[max(0, gaps):])
    return [(spans[first][0], spans[after - 1][1])
            for first, after in zip([0, *kept], [*kept, len(spans)]) if spans]
