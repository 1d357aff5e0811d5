"""What a vendor of the sandbox is: its folder's `VENDOR`, and nothing elsewhere knows its name.

    sandbox/kraken/__init__.py      VENDOR = Vendor("kraken", api=KrakenApi, error=…, history=…)

Three parts: a `History` (what happened, and the truth about it), an `Api` (the routes that tell of
it) and the error answers. Inside them moments are whole seconds since 1970; `World` turns texts into
them, and grows a history before it asks it anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from starlette.responses import Response
from starlette.routing import Route

EVERYTHING = 2**62  # as a moment: all that was generated so far, in its last version


@dataclass(frozen=True)
class Plan:
    """What every history is made from. `books_start` is when books of it begin, `start` or later."""

    seed: int
    start: int
    scale: float
    late_days: int
    mess: bool
    books_start: int


class Row(Protocol):
    """A row of a history that can vanish."""

    gone_at: int

    @property
    def may_vanish(self) -> bool: ...

    def is_there(self, now: int) -> bool: ...

    def truth(self, now: int) -> dict: ...


class History(ABC):
    """A vendor's part of the world, the same for the same Plan; growing it only adds to it.

    `grow` is a vendor's own, and so are the others where it has such a thing. Rows of the truth are
    dicts as `World` documents them.
    """

    @abstractmethod
    def grow(self, until: int) -> None:
        """Generate all that happens at or before `until`; a second time does nothing."""

    def truths(self) -> Mapping[str, Callable[[int], list[dict]]]:
        """Name → the rows at a moment: `ledger` and `fills` of an exchange, and what else it has."""
        return {}

    def balances(self, before: int, now: int) -> list[dict]:
        """Sums of the rows with time < `before` that are visible and settled at `now`."""
        return []

    def residuals(self, at: int, now: int, since: int) -> list[dict]:
        """What is reported at `at` and not in the rows since `since` that `now` shows."""
        return []

    def listed(self, now: int, since: int) -> Sequence[Row]:
        """The rows visible at `now`, with time >= `since`, among which one may vanish."""
        return []

    def vanish(self, at: int, rng: Random, since: int) -> dict | None:
        """One row, drawn by `rng`, is gone from `at` on; the truth about it a second before."""
        rows = [row for row in self.listed(at - 1, since) if row.may_vanish and row.is_there(at)]
        if not rows:
            return None
        row = rng.choice(rows)
        row.gone_at = at
        return row.truth(at - 1)

    def summary(self, now: int) -> dict[str, int]:
        """How much there is, for the first line of a log; vendors' numbers of one name are added."""
        return {}


class Api(ABC):
    """A vendor's routes. `balance` and `units_spent` are of one that sells its calls by units."""

    balance: int | None = None
    units_spent: int = 0

    @abstractmethod
    def routes(self) -> list[Route]:
        """Its routes, every path below /<name of the vendor>/."""

    @abstractmethod
    def lift_limits(self) -> None:
        """No rate limits from now on: for clients that do not wait."""

    def facts(self) -> dict[str, Any]:
        """What /_health says of it: how it was set up where the vendor's documentation is silent."""
        return {}


@dataclass(frozen=True)
class Pages:
    """Where pages of history keep their rows, for the faults that spoil them.

    `rows(answer)`: the list or the map of rows inside the parsed answer, or None where it is no
    page of history; faults change it in place. `time(row)`: its time, in any form that tells two
    apart. `more(answer, rows, asked)`: the page, whose `rows` were taken away, says that there is
    more after them; False where the vendor's pages cannot say so. `again(answer, asked)`: the page
    names the cursor that was asked for as the next one; False where there is none. `asked` are the
    parameters of the query.
    """

    rows: Callable[[Any], list | dict | None]
    time: Callable[[Any], object]
    more: Callable[[Any, list, Mapping[str, str]], bool] = lambda answer, rows, asked: False
    again: Callable[[Any, Mapping[str, str]], bool] = lambda answer, asked: False


@dataclass(frozen=True)
class Vendor:
    """`name`: that of its folder, of its path on the port and of the connection type.

    `api(world, clock, **options)` and `history(plan, **options)` take those options of theirs that
    `create_app` and `World` were given, by the names in `api_options` and `history_options`; `flags`
    adds the same to the command line. `error(status, path, message)`: an answer in the vendor's own
    shape, `path` without the vendor's name. `accounts`: the entries of an accounts.toml, without
    their source; `connection(url)`: the fields of the Airflow Connection that opens them, at the
    url of this vendor. `sells_units`: faults of exhausted units are this vendor's, too. `in_demo`:
    `make demo` and the tests of the product keep books of its accounts.
    """

    name: str
    api: Callable[..., Api]
    history: Callable[..., History]
    error: Callable[..., Response]
    accounts: Sequence[Mapping[str, str]]
    connection: Callable[[str], Mapping[str, str]]
    pages: Pages
    sells_units: bool = False
    in_demo: bool = True
    api_options: Sequence[str] = ()
    history_options: Sequence[str] = ()
    flags: Callable[[ArgumentParser], None] = lambda parser: None
