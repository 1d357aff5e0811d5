"""The curated models as plain views of a DuckDB connection: rows of raw are judged at once."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from unittest import mock

PROJECT = Path(__file__).parents[2] / "sqlmesh_project"
MODELS = ("staged_exchanges", "staged_onchain", "tx_unified", "daily_flows", "reconciliation")


@functools.cache
def queries() -> dict[str, str]:
    """The query of each model over all days there are."""
    from sqlmesh.core.console import NoopConsole, set_console
    from sqlmesh.core.context import Context

    with (
        tempfile.TemporaryDirectory() as var,
        mock.patch.dict(os.environ, {"LEDGERHOUSE_VAR": var}),
    ):
        os.environ.pop("LEDGERHOUSE_STATE_URI", None)
        set_console(NoopConsole())
        ctx = Context(paths=str(PROJECT))
        found = {
            name: ctx.get_model(f"curated.{name}")
            .render_query(start="2009-01-01", end="2100-01-01")
            .sql("duckdb")
            .replace('"warehouse".', "")
            for name in MODELS
        }
        ctx.close()
        ctx.engine_adapter.close()
    return found


def make_views(con) -> None:
    """The curated schema, as views."""
    con.execute("CREATE SCHEMA IF NOT EXISTS curated")
    for name, query in queries().items():
        con.execute(f"CREATE OR REPLACE VIEW curated.{name} AS {query}")
