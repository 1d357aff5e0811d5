"""DuckDB files and Parquet, opened and written encrypted where the setting says so.

    connect(path, …)                     a connection to a file, encrypted or not; new: as it is set
    attach(con, path, name, …)           such a file beside others
    cursor(con, database)                another connection to the same databases
    add_parquet_keys(con)                then scan(paths, key_id) reads the Parquet files
    parquet_options(key_id)              … which COPY wrote with these

A file that is there is opened as it is, whatever the setting: what is written again (a replay, a
compaction, `airflow warehouse encrypt`) is written as it is set (see extract.fetch.encryption).

DuckDB takes a key in ATTACH only, so the file is attached to a database in memory, under the name
that it has alone. Keys are bound as parameters, never part of a statement: DuckDB's errors and
SQLMesh's logs quote statements. Temporary files are encrypted by a setting of their own.

DuckDB's own AES is for reading. To write it wants OpenSSL, which is in its extension httpfs: that
is loaded where it is installed (nothing is downloaded here), and otherwise DuckDB's own is forced:
docs/security.md says what is weaker then.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.fetch import encryption
from extract.fetch.encryption import Key

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

STORAGE = "v1.2.0"  # of a new file: the first format with zstd; any DuckDB since can read it
ENCRYPTED_STORAGE = "v1.4.0"  # the first that knows encryption
WRONG, WITHOUT = "Wrong encryption key", "without a key"  # how DuckDB says it
PREFIX = "ledgerhouse_"  # of a Parquet key's name; its id follows
_warned = False


def is_encrypted(path: Path) -> bool:
    """Whether the header of a DuckDB file says so; of a damaged one, what is left of it says."""
    try:
        with open(path, "rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return len(head) == 21 and head[8:12] == b"DUCK" and bool(head[20] & 1)


def connect(
    path: Path, *, read_only: bool = False, config: dict[str, Any] | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection whose default database is the file at `path`, made where it is missing.

    Raises EncryptionError where it is encrypted, and the key is missing or another one.
    """
    import duckdb

    config, key = dict(config or {}), encryption.current()
    there = path.exists() and path.stat().st_size
    if not (is_encrypted(path) if there else key and not read_only):
        # With a key what is spilled is encrypted, though the file may not be yet.
        con = duckdb.connect(str(path), read_only=read_only, config=config | settings())
        return prepared(con)
    config.pop("storage_compatibility_version", None)
    con = duckdb.connect(
        config=config | settings(encrypted=True) | {"temp_directory": f"{path}.tmp"}
    )
    try:
        prepared(con, encrypted=True)
        name = path.stem
        attach(con, path, name, read_only=read_only)
        con.execute(f'USE "{name}"')
    except BaseException:
        con.close()
        raise
    return con


def attach(
    con: duckdb.DuckDBPyConnection, path: Path, name: str, *, read_only: bool = False
) -> None:
    """Attach the file at `path`; a new one as it is set. Raises EncryptionError, as connect does."""
    import duckdb

    place = f"""ATTACH '{str(path).replace("'", "''")}' AS "{name}" """
    options = ["READ_ONLY"] if read_only else []
    if not (path.exists() and path.stat().st_size):
        key = encryption.current()
        version = ENCRYPTED_STORAGE if key else STORAGE
        options += [f"STORAGE_VERSION '{version}'", *(["ENCRYPTION_KEY ?"] if key else [])]
        con.execute(place + _listed(options), [key.text(encryption.DUCKDB)] if key else None)
        return
    if not is_encrypted(path):
        con.execute(place + _listed(options))
        return
    for key in encryption.known().values():
        try:
            con.execute(
                place + _listed([*options, "ENCRYPTION_KEY ?"]), [key.text(encryption.DUCKDB)]
            )
            return
        except duckdb.Error as error:
            if WRONG not in str(error):
                raise
    if not encryption.known():
        # A damaged header may say that it is encrypted: DuckDB looks at its checksum first.
        try:
            con.execute(place + _listed(options))
        except duckdb.CatalogException as error:
            if WITHOUT not in str(error):
                raise
    raise encryption.missing(str(path))


def opens(path: Path, key: Key) -> bool:
    """Whether this key is the one that an encrypted file was written under."""
    import duckdb

    with duckdb.connect(config={"autoinstall_known_extensions": False}) as con:
        try:
            con.execute(
                f"""ATTACH '{str(path).replace("'", "''")}' AS file (READ_ONLY, ENCRYPTION_KEY ?)""",
                [key.text(encryption.DUCKDB)],
            )
        except duckdb.InvalidInputException as error:
            if WRONG not in str(error):
                raise
            return False
    return True


def _listed(options: Sequence[str]) -> str:
    return f"({', '.join(options)})" if options else ""


def cursor(con: duckdb.DuckDBPyConnection, database: str) -> duckdb.DuckDBPyConnection:
    """Another connection to the databases of `con`, for another thread; its default one is named."""
    other = con.cursor()
    other.execute(f'USE "{database}"')
    return other


def settings(*, encrypted: bool = False) -> dict[str, Any]:
    """Settings of a database instance: none without a key, unless its file is `encrypted`."""
    if not (encrypted or encryption.known()):
        return {}
    # Without the first DuckDB would download httpfs whenever it writes.
    return {"autoinstall_known_extensions": False, "temp_file_encryption": True}


def prepared(
    con: duckdb.DuckDBPyConnection, *, encrypted: bool = False
) -> duckdb.DuckDBPyConnection:
    """The connection, able to write what is encrypted; as it is where there is no key."""
    global _warned
    if not (encrypted or encryption.known()):
        return con
    found = con.execute(
        "SELECT 1 FROM duckdb_extensions() WHERE extension_name = 'httpfs' AND installed"
    ).fetchall()
    if found:
        con.execute("LOAD httpfs")
        return con
    con.execute("SET force_mbedtls_unsafe = true")
    if not _warned:
        log.warning(
            "DuckDB's extension httpfs is not installed: it encrypts with its own AES, whose "
            "random numbers are weaker than OpenSSL's (docs/security.md)"
        )
        _warned = True
    return con


def add_parquet_keys(con: duckdb.DuckDBPyConnection) -> None:
    """Make the keys that are known those of the Parquet files whose options name them."""
    for key in encryption.known().values():
        con.execute("SET VARIABLE parquet_key = ?", [key.text(encryption.PARQUET)])
        con.execute(f"PRAGMA add_parquet_key('{PREFIX}{key.id}', getvariable('parquet_key'))")
        con.execute("RESET VARIABLE parquet_key")


def parquet_options(key_id: str) -> str:
    """What COPY needs besides to write Parquet under a key; '' for plain text."""
    return f", ENCRYPTION_CONFIG {{footer_key: '{PREFIX}{key_id}'}}" if key_id else ""


def scan(paths: str, key_id: str, *options: str) -> str:
    """read_parquet over `paths`, an expression, of files that were written under one key."""
    config = f"encryption_config = {{footer_key: '{PREFIX}{key_id}'}}" if key_id else ""
    return f"read_parquet({', '.join(filter(None, (paths, *options, config)))})"


def require_parquet_keys(key_ids: set[str], what: str) -> None:
    """Raise EncryptionError where Parquet files need a key that is not known."""
    for key_id in sorted(key_ids - {""} - encryption.known().keys()):
        raise encryption.missing(what, key_id)


def key_id(key: Key | None) -> str:
    """The id of a key; '' for none, as the books note it."""
    return key.id if key else ""
