"""Output of commands: tables for people, tab-separated lines for pipes, JSON for programs.

Amounts are text from the warehouse to the screen; JSON has them as strings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from extract.core.interval import iso
from extract.core.text import visible

if TYPE_CHECKING:
    import duckdb

WIDTH = 160  # of tables, where the output is no terminal
UNBROKEN = ("account", "dataset", "ts", "start", "end", "amount", "covered_through", "last_run")
Row = Mapping[str, Any]


def rows(
    con: duckdb.DuckDBPyConnection, sql: str, params: Sequence[Any] | dict[str, Any] = ()
) -> list[dict[str, Any]]:
    """The answer of a query, a dict a row."""
    cursor = con.execute(sql, params if isinstance(params, dict) else list(params))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def digits(amount: Decimal | None) -> str | None:
    """Every digit of an amount, without the zeros at its end and never as 1E+3."""
    if amount is None:
        return None
    text = format(amount, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def plain(value: Any) -> Any:
    """A value as JSON has it: times as 2026-01-31T06:00:00Z, amounts as text."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return digits(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def cell(value: Any) -> str:
    """A value as a table has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        text = iso(value.replace(microsecond=0)).replace("T", " ")
        return text.replace(":00Z", "").removesuffix("Z")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value))
    return visible(str(plain(value)))


class Answer:
    """One command's answer: tables and remarks, printed in the form that was asked for.

    `document` is what JSON has beside the tables, by name.
    """

    def __init__(self, output: str, **document: Any):
        self.output, self.document = output, dict(document)
        self._console = None

    @property
    def console(self):
        if self._console is None:
            from rich.console import Console

            self._console = Console(highlight=False)
            if not self._console.is_terminal:
                self._console = Console(highlight=False, width=WIDTH)
        return self._console

    def table(
        self,
        name: str,
        title: str,
        lines: Sequence[Row],
        columns: Mapping[str, str],
        marked=lambda row: False,
        right: Sequence[str] = (),
    ) -> None:
        """Rows under `title`; `columns`: field → heading; `marked` rows are red, `right` aligned.

        JSON has every field of the rows, by their names.
        """
        self.document[name] = [plain(row) for row in lines]
        if self.output == "plain":
            print("\t".join(columns))
            for row in lines:
                print(
                    "\t".join(
                        "" if (v := plain(row.get(c))) is None else visible(str(v)) for c in columns
                    )
                )
        elif self.output == "table":
            self.say(title, style="bold")
            self.console.print(_table(lines, columns, marked, right) if lines else "none")

    def say(self, text: str, style: str | None = None) -> None:
        """A remark beside the tables; programs do not get it."""
        if self.output == "table" and text:
            self.console.print(visible(text, keep="\n"), style=style, markup=False)

    def end(self) -> None:
        if self.output == "json":
            print(json.dumps(plain(self.document), indent=1))


def as_text(lines: Sequence[Row], columns: Mapping[str, str]) -> str:
    """The table for a log: nothing is cut or folded, and no line is empty."""
    from rich.console import Console

    screen = Console(width=1000, color_system=None)
    with screen.capture() as captured:
        screen.print(_table(lines, columns, lambda row: False, (), whole=True))
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())


def short(text: str, keep: int = 11) -> str:
    """A long name with its middle left out; a table has no room for wallets."""
    return text if len(text) <= keep else f"{text[: keep - 5]}…{text[-4:]}"


def _table(lines, columns, marked, right, whole=False):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name, heading in columns.items():
        table.add_column(
            heading,
            overflow="fold",
            no_wrap=whole or name in UNBROKEN,
            justify="right" if name in right or _numbers(lines, name) else "left",
        )
    for row in lines:
        # As text, not markup: what a token is called was chosen by a stranger.
        texts = {name: cell(row.get(name)) for name in columns}
        if "account" in texts and not whole:
            texts["account"] = short(texts["account"])
        table.add_row(*map(Text, texts.values()), style="bold red" if marked(row) else None)
    return table


def _numbers(lines, name: str) -> bool:
    return any(
        isinstance(row.get(name), (int, Decimal)) and not isinstance(row.get(name), bool)
        for row in lines
    )
