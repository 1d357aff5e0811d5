"""A reading of pages backwards in time, newest first, cut into parallel pieces where it is long.

An API whose pages come newest first takes an upper bound only, so a walker needs one answer before it can ask for the
next page. Times are whole seconds since 1970 and every span is half-open, so a walk may be cut
at any second: the newer part then ends there, the older part begins there, each by the rule that
ends and begins the whole walk. Nothing is lost at a cut; a page that crosses one is read for
half its rows, so a cut costs half a call and must spare more.

Whether a walk is long is learned by walking: a short one is one walker's, call for call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from extract.core.source import Page
from extract.fetch.client import WORKERS, Client

PAGES_A_CUT = 18  # half a page in 18: cuts cost 3 % of the calls
SHORTEST = 4  # pages left of a piece that is worth cutting
RECENT = 4  # steps that tell how dense it is just now
READ_A_CUT = 2  # a first page says little of all the others: so many pages earn one cut


@dataclass(eq=False)
class Piece:
    """[floor, top) of a walk, read down to `cursor`; `reason` says why its paging ended."""

    floor: int
    top: int
    cursor: int
    pages: list[Page] = field(default_factory=list)  # newest first
    reason: str = ""
    guess: float = 0.0  # pages it may have, as long as none is read
    first: Any = None  # what the source remembers of its first page
    last: Any = None  # and of the page before
    steps: list[int] = field(default_factory=list)  # where the cursor was after each

    def left(self) -> float:
        """Pages still to come, if the rest is as dense as what was read.

        Or, in a stretch that is denser than that, as long as there were pages before.
        """
        if self.reason:
            return 0.0
        if not self.steps:
            return self.guess
        read, rest = len(self.steps), self.cursor - self.floor
        even = read * rest / (self.top - self.cursor)
        if read <= RECENT:
            return even
        return max(even, min(RECENT * rest / (self.steps[-1 - RECENT] - self.cursor), read))


class Walk:
    """One walk over [start, end), which becomes several pieces."""

    def __init__(self, start: int, end: int, workers: int = WORKERS):
        self.pieces, self.workers = [Piece(start, end, end)], workers
        self._lock = Lock()

    def run(self, client: Client, step: Callable[[Piece], None]) -> list[Piece]:
        """Read all pieces, newest first, by `step`; raises what it raises.

        `step(piece)` reads the next page (or, where one page is not enough, a few) into
        `piece.pages` and then lowers `piece.cursor` or sets `piece.reason`; it is called by up
        to `workers` threads, for a piece by one at a time.
        """

        def work(piece: Piece, fork: Callable[[Any], bool]) -> None:
            while not piece.reason:
                step(piece)
                piece.steps.append(piece.cursor)
                self._cut(piece, fork)

        client.run_concurrently(work, self.pieces[0], self.workers)
        return sorted(self.pieces, key=lambda piece: -piece.top)

    def _cut(self, piece: Piece, fork: Callable[[Any], bool]) -> None:
        """Give the older half of what `piece` has left to an idle worker, if worth a call."""
        with self._lock:
            left = [piece.left() for piece in self.pieces]
            read = sum(len(piece.pages) for piece in self.pieces)
            most = min((read + sum(left)) / PAGES_A_CUT, (read - READ_A_CUT) / READ_A_CUT)
            middle = (piece.floor + piece.cursor) // 2
            if len(self.pieces) > most or middle <= piece.floor:
                return
            if not piece.left() == max(left) >= SHORTEST:
                return  # the longest is cut, when its own worker comes by
            older = Piece(piece.floor, middle, middle, guess=piece.left() / 2)
            if fork(older):
                self.pieces.append(older)
                piece.floor = middle


def reasons(pieces: list[Piece]) -> str:
    """Why the paging of a walk ended: the reason of its only piece, or of each."""
    why = " or ".join(sorted({piece.reason for piece in pieces}))
    return why if len(pieces) == 1 else f"{why} in each of {len(pieces)} pieces"
