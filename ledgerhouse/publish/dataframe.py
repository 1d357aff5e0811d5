"""The published books as pandas DataFrames, to the last digit; and the files they are made of.

    from ledgerhouse import files, frame

    frame("curated.daily_balances", where="token = ?", parameters=["BTC"])
    frame("SELECT token, sum(net) AS net FROM curated.daily_flows GROUP BY token")
    files("curated.daily_balances")       for pandas.read_parquet, polars, pyarrow, …

A decimal column is an object column of decimal.Decimal, NULL is None: sums, differences,
comparisons, groupby().sum(), min and max are exact. (DuckDB's own .df() makes floats of decimals:
0.1 + 0.2 is no longer 0.3.) To draw, convert what is drawn, and only that: column.astype(float).
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerhouse.publish.books import open_books, published_dir, read_content

if TYPE_CHECKING:
    import duckdb

DIGITS = 76  # Python rounds sums to 28 digits; a DECIMAL(38,18) has 38, a million of them 44
TABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")


def frame(
    query: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    where: str = "",
    root: Path | None = None,
) -> Any:
    """A table of the newest published books ("curated.daily_balances"), or the rows of a SELECT,
    as a pandas.DataFrame.

    `where` keeps rows of a table, like "date >= ? AND token = ?"; `parameters` fill the ? (a list)
    or $name (a dict). DECIMAL and 128-bit integers: exact, as objects; TIMESTAMP:
    datetime64 in UTC, with the zone; DATE: datetime64 at midnight, without a zone; integers and
    booleans with NULLs: pandas' Int64 … and boolean. Reading waits for no run and locks nothing.

    Raises the precision of decimal arithmetic in this process to 76 digits where it is lower, or
    pandas would round sums to 28. Raises FileNotFoundError where nothing has been published, and
    ValueError, naming the tables there are, where one is unknown.
    """
    import duckdb

    for context in (decimal.getcontext(), decimal.DefaultContext):  # the latter: of new threads
        context.prec = max(context.prec, DIGITS)
    with open_books(root) as con:
        if is_table := bool(TABLE.fullmatch(query.strip())):
            _require_table(con, query.strip())
            query = f"FROM {query.strip()}" + (f" WHERE {where}" if where else "")
        elif where:
            raise ValueError("where goes with the name of a table; a query has its own WHERE")
        try:
            con.execute(query, parameters)
            return _as_frame(con)
        except duckdb.CatalogException as error:
            hint = "" if is_table else f". The books hold: {', '.join(tables(con))}"
            raise ValueError(f"{str(error).splitlines()[0]}{hint}") from None


def files(table: str, root: Path | None = None) -> list[Path]:
    """The Parquet files that hold a table of the newest books, oldest month first.

    Ask again for each reading: a file stays for an hour after the books have dropped it. Never
    list the folder: it holds older generations too, so rows would count twice. A table
    kept by month has no file before its first row. Errors as of frame().
    """
    root = Path(root or published_dir()).resolve()
    with open_books(root) as con:
        _require_table(con, table)
    of_table = [file for file in read_content(root).files if file.table_name == table]
    return [root / file.path for file in sorted(of_table, key=lambda f: (str(f.month), f.path))]


def tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the published tables and views, like curated.assets (see add_missing_views)."""
    return [
        name
        for (name,) in con.execute(
            "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal "
            "AND schema_name IN ('curated', 'raw', 'ops') ORDER BY ALL"
        ).fetchall()
    ]


def _require_table(con: duckdb.DuckDBPyConnection, table: str) -> None:
    """Raise ValueError, naming the published tables, unless `table` is one of them."""
    published = tables(con)
    if table not in published:
        raise ValueError(
            f"no table {table!r} in the published books; there are: {', '.join(published)}"
        )


def _as_frame(con: duckdb.DuckDBPyConnection) -> Any:
    """The result of what `con` has executed, as a DataFrame. A column at a time: DuckDB's would be floats."""
    import pandas

    kinds = [(name, str(kind)) for name, kind, *_ in con.description or ()]
    repeated = {name for name, _ in kinds if [n for n, _ in kinds].count(name) > 1}
    if repeated:
        raise ValueError(
            f"two columns are called {', '.join(sorted(repeated))}: name one otherwise (AS)"
        )
    rows = con.fetchall()
    columns = list(zip(*rows)) or [()] * len(kinds)
    return pandas.DataFrame(
        {name: _series(values, kind) for (name, kind), values in zip(kinds, columns)}
    )


def _series(values: Sequence[Any], kind: str) -> Any:
    """A column as a pandas.Series of the type that holds DuckDB's `kind` exactly."""
    import pandas

    values = list(values)
    if kind == "BOOLEAN":
        return pandas.Series(values, dtype="boolean" if None in values else "bool")
    if re.fullmatch(r"U?(TINY|SMALL|BIG)?INT(EGER)?", kind):
        width = {"TINY": 8, "SMALL": 16, "BIG": 64}.get(
            kind.removeprefix("U").removesuffix("INTEGER").removesuffix("INT"), 32
        )
        name = f"{'UI' if kind[0] == 'U' else 'I'}nt{width}"
        return pandas.Series(values, dtype=name if None in values else name.lower())
    if kind in ("DOUBLE", "FLOAT"):
        return pandas.Series(values, dtype="float64")
    if kind.startswith("TIMESTAMP"):  # all of ours are UTC, of either type
        return pandas.Series(pandas.to_datetime(pandas.Series(values, dtype="object"), utc=True))
    if kind == "DATE":
        return pandas.Series(pandas.to_datetime(pandas.Series(values, dtype="object")))
    return pandas.Series(values, dtype="object")
