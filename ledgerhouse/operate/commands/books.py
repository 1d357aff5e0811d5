"""The published books as commands read them: how old they are, and whose accounts they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING

from extract.core.interval import iso, utc
from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.tables import Answer, rows

if TYPE_CHECKING:
    import duckdb

OLD = timedelta(hours=12)  # two syncs


@contextmanager
def opened(output: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, Answer]]:
    """Open the newest books for a command: (connection, answer), with their age printed at the end."""
    from ledgerhouse.publish.books import open_books

    with open_books() as con:
        ((at, through, run),) = con.execute(
            "SELECT published_at, through, run_id FROM main.published"
        ).fetchall()
        age = datetime.now(UTC) - utc(at)
        answer = Answer(output, published_at=at, through=through, run_id=run)
        yield con, answer
        answer.say(
            f"Books published {ago(age)} ago, at {iso(at)}, by run {run}",
            style="bold red" if age > OLD else "dim",
        )
        answer.end()


def ago(age: timedelta) -> str:
    """3 days, 5 h, 12 min."""
    minutes = int(age.total_seconds() // 60)
    for size, unit in ((1440, "days"), (60, "h"), (1, "min")):
        if minutes >= 2 * size:
            return f"{minutes // size} {unit}"
    return f"{max(int(age.total_seconds()), 0)} s"


def accounts(
    con: duckdb.DuckDBPyConnection, source: str | None = None, account: str | None = None
) -> list[tuple[str, str]]:
    """(source, account) of the books, in order: those of `source` whose name begins with `account`.

    Raises CommandFailed (2) with those there are where none is meant.
    """
    every = [
        (row["source"], row["account"])
        for row in rows(con, "SELECT DISTINCT source, account FROM ops.coverage ORDER BY ALL")
    ]
    if source and source not in {s for s, _ in every}:
        raise CommandFailed(
            f"the books hold no source {source!r}; they hold: "
            + (", ".join(sorted({s for s, _ in every})) or "none yet"),
            2,
        )
    mine = [(s, a) for s, a in every if source in (None, s)]
    if account is None:
        return mine
    exact = [(s, a) for s, a in mine if a == account]
    matching = exact or [(s, a) for s, a in mine if a.lower().startswith(account.lower())]
    if not matching:
        raise CommandFailed(
            f"the books hold no account {account!r}; they hold: "
            + (", ".join(f"{s} {a}" for s, a in mine) or "none yet"),
            2,
        )
    return matching


def one_account(
    con: duckdb.DuckDBPyConnection, source: str | None, account: str
) -> tuple[str, str]:
    """The one account that is meant; CommandFailed (2) where several are."""
    matching = accounts(con, source, account)
    if len(matching) > 1:
        raise CommandFailed(
            f"{account!r} may be "
            + " or ".join(f"{s} {a}" for s, a in matching)
            + ": write more of it, or --source",
            2,
        )
    return matching[0]


def near(word: str, known: Sequence[str], most: int = 5) -> list[str]:
    """Known words like `word`, else the first of all."""
    lower = {name.lower(): name for name in known}
    return [lower[m] for m in get_close_matches(word.lower(), lower, most, 0.4)] or list(known)[
        :most
    ]
