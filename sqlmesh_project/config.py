"""SQLMesh's settings: one warehouse file, one writer, each model's delete + insert atomic.

Environment, read when SQLMesh loads this file:
  LEDGERHOUSE_VAR        directory of warehouse.duckdb and of the parse cache; default ../var
  LEDGERHOUSE_ENCRYPTION_KEY, LEDGERHOUSE_ENCRYPTION_OLD_KEYS   for a warehouse that is encrypted
  LEDGERHOUSE_STATE_URI  PostgreSQL for the state, as postgresql://user:pass@host:port/name or
                         postgresql://user@/name?host=/socket/directory; unset: the warehouse itself

The models start long before any data: a row older than the start would never be transformed,
and an early start costs nothing (2009 against 2024: 0.02 s more a run).
Semi-internal parts (`_engine_adapter`) are pinned to sqlmesh 0.236.4, held by tests/sqlmesh_project/test_models.py.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from sqlglot.expressions import or_
from sqlmesh.core.config import Config, GatewayConfig, LinterConfig, ModelDefaultsConfig, PlanConfig
from sqlmesh.core.config.categorizer import AutoCategorizationMode, CategorizerConfig
from sqlmesh.core.config.connection import DuckDBConnectionConfig, PostgresConnectionConfig
from sqlmesh.core.engine_adapter.duckdb import DuckDBEngineAdapter
from sqlmesh.utils.date import make_inclusive

FIRST_DAY = "2009-01-01"
VAR = Path(os.environ.get("LEDGERHOUSE_VAR") or Path(__file__).parents[1] / "var").absolute()


class TxDuckDBAdapter(DuckDBEngineAdapter):
    """DuckDB with transactions: a model that fails or is killed leaves its old days in place."""

    SUPPORTS_TRANSACTIONS = True
    # While scattered days are evaluated together (ledgerhouse/transform/scattered_days.py): their
    # spans, [start, end) in milliseconds. Otherwise empty: the whole interval is replaced.
    touched_spans: Sequence[tuple[int, int]] = ()

    def insert_overwrite_by_time_partition(
        self,
        table_name,
        query_or_df,
        start,
        end,
        time_formatter,
        time_column,
        target_columns_to_types=None,
        source_columns=None,
        **kwargs,
    ):
        """Delete and insert the rows of an interval; of touched spans, exactly theirs."""
        if not self.touched_spans:
            return super().insert_overwrite_by_time_partition(
                table_name,
                query_or_df,
                start,
                end,
                time_formatter,
                time_column,
                target_columns_to_types=target_columns_to_types,
                source_columns=source_columns,
                **kwargs,
            )
        source_queries, columns = self._get_source_queries_and_columns_to_types(
            query_or_df,
            target_columns_to_types,
            target_table=table_name,
            source_columns=source_columns,
        )
        columns = columns or self.columns(table_name)
        touched = [
            time_column.column.between(
                *(time_formatter(at, columns) for at in make_inclusive(*span, self.dialect))
            )
            for span in self.touched_spans
        ]
        with self.transaction():
            for span in touched:  # one by one: an OR of ranges would read the whole table
                self.delete_from(table_name, where=span)
            for source_query in source_queries:
                with source_query as query:
                    self._insert_append_query(
                        table_name,
                        self._order_projections_and_filter(query, columns, where=or_(*touched)),
                        target_columns_to_types=columns,
                        order_projections=False,
                    )

    def columns(self, table_name, include_pseudo_columns=False):
        # DESCRIBE runs in a transaction of its own and is fetched after its commit: empty.
        with self.transaction():
            return super().columns(table_name, include_pseudo_columns)


class TxDuckDBConfig(DuckDBConnectionConfig):
    @property
    def _engine_adapter(self):
        return TxDuckDBAdapter

    @property
    def _connection_factory(self):
        factory = super()._connection_factory
        if self.database and is_encrypted(self.database):
            return connect_encrypted
        return factory

    @property
    def _cursor_init(self):
        init = super()._cursor_init

        def use_file(cursor):
            init(cursor)
            if self.database and is_encrypted(self.database):
                cursor.execute(f'USE "{Path(self.database).stem}"')

        return use_file


# As ledgerhouse/warehouse/encrypted.py, which this cannot import: tests compare them.
KEYS = ("LEDGERHOUSE_ENCRYPTION_KEY", "LEDGERHOUSE_ENCRYPTION_OLD_KEYS")
PURPOSE = b"ledgerhouse duckdb\x01"


def is_encrypted(database: str) -> bool:
    """Whether the header of a DuckDB file says so."""
    path = Path(database)
    with path.open("rb") if path.is_file() else open(os.devnull, "rb") as file:
        head = file.read(21)
    return len(head) == 21 and head[8:12] == b"DUCK" and bool(head[20] & 1)


def keys() -> list[str]:
    """DuckDB's key of each key in the environment, the one that is set first."""
    texts = [text for name in KEYS for text in os.environ.get(name, "").replace(",", " ").split()]
    secrets = [base64.b64decode(text.replace("-", "+").replace("_", "/")) for text in texts]
    return [base64.b64encode(hmac.digest(each, PURPOSE, "sha256")).decode() for each in secrets]


def connect_encrypted(database: str, **kwargs):
    """A connection to an encrypted file. The key is a parameter, so that no text quotes it."""
    import duckdb

    con = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "temp_file_encryption": True,
            "temp_directory": f"{database}.tmp",
        }
    )
    found = "SELECT 1 FROM duckdb_extensions() WHERE extension_name = 'httpfs' AND installed"
    has_openssl = con.execute(found).fetchall()
    con.execute("LOAD httpfs" if has_openssl else "SET force_mbedtls_unsafe = true")
    path, name = database.replace("'", "''"), Path(database).stem
    error = None
    for key in keys():
        try:
            con.execute(f"ATTACH '{path}' AS \"{name}\" (ENCRYPTION_KEY ?)", [key])
            return con
        except duckdb.InvalidInputException as refused:
            error = refused
    con.close()
    raise RuntimeError(f"{database} is encrypted: put its key into {KEYS[0]}") from error


def state_connection(uri: str | None) -> PostgresConnectionConfig | None:
    """The state's database from a PostgreSQL URI; None keeps it in the warehouse file."""
    if not uri:
        return None
    parts = urlsplit(uri)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname])[0]
    if not parts.scheme.startswith("postgres") or not host or not parts.path.strip("/"):
        raise ValueError(
            f"LEDGERHOUSE_STATE_URI {uri!r} names no PostgreSQL database; write it like "
            "postgresql://postgres@/sqlmesh?host=/path/to/socketdir"
        )
    return PostgresConnectionConfig(
        host=host,
        port=parts.port or int(query.get("port", [5432])[0]),
        user=unquote(parts.username or "postgres"),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.strip("/")),
        concurrent_tasks=1,
    )


config = Config(
    gateways={
        "warehouse": GatewayConfig(
            connection=TxDuckDBConfig(
                database=str(VAR / "warehouse.duckdb"),
                concurrent_tasks=1,
                connector_config={
                    "TimeZone": "UTC",
                    "memory_limit": "4GB",
                    "max_vacuum_tasks": 0,
                },  # once a week: ledgerhouse/warehouse/connection.py
            ),
            state_connection=state_connection(os.environ.get("LEDGERHOUSE_STATE_URI")),
            test_connection=TxDuckDBConfig(concurrent_tasks=1, register_comments=False),
        )
    },
    default_gateway="warehouse",
    cache_dir=str(VAR / "sqlmesh_cache"),
    model_defaults=ModelDefaultsConfig(dialect="duckdb", cron="@daily", start=FIRST_DAY),
    plan=PlanConfig(auto_categorize_changes=CategorizerConfig(sql=AutoCategorizationMode.FULL)),
    linter=LinterConfig(
        enabled=True,
        rules=[
            "ambiguousorinvalidcolumn",
            "invalidselectstarexpansion",
            "noselectstar",
            "nomissingaudits",
            "nomissingexternalmodels",
            "nomissingunittest",
        ],
    ),
    disable_anonymized_analytics=True,
)
