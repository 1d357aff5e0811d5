"""`airflow warehouse shell`: DuckDB's command line on the published books, encrypted or not."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ledgerhouse.operate.commands import CommandFailed

NAME = "LEDGERHOUSE_SHELL_KEY"  # of the child's environment only, with a number


def shell(args: Any) -> int:
    """Become the shell; with --command, what it answers to that. Keys are in its environment,
    never in its arguments or its history."""
    from ledgerhouse.publish.books import published_dir

    program = shutil.which("duckdb", path=str(Path(sys.executable).parent)) or shutil.which(
        "duckdb"
    )
    if not program:
        raise CommandFailed(
            "DuckDB's command line is not installed: make dev does, or pip install duckdb-cli"
        )
    statements, secrets = opening(published_dir())
    command = [program, *(part for one in statements for part in ("-cmd", one))]
    if args.command:
        command += ["-c", args.command]
    sys.stdout.flush()
    os.execve(program, command, {**os.environ, **secrets})


def opening(root: Path) -> tuple[list[str], dict[str, str]]:
    """The statements that open the books in the shell, and the variables that these read."""
    from extract.fetch import encryption
    from ledgerhouse.publish.books import BOOKS, ROOT_VARIABLE, open_books, quoted
    from ledgerhouse.warehouse import encrypted

    with open_books(root):  # says what is missing, as for everybody else
        pass
    path = Path(root).resolve() / BOOKS
    keys = list(encryption.known().values())
    secrets = {
        f"{NAME}_{number}_{purpose.split()[-1].upper()}": key.text(purpose)
        for number, key in enumerate(keys)
        for purpose in (encryption.DUCKDB, encryption.PARQUET)
    }
    option = ""
    if encrypted.is_encrypted(path):
        number = next(n for n, key in enumerate(keys) if encrypted.opens(path, key))
        option = f", ENCRYPTION_KEY getenv('{NAME}_{number}_DUCKDB')"
    spill = ["SET temp_file_encryption = true", "SET force_mbedtls_unsafe = true"] if keys else []
    return [
        ".output /dev/null",  # PRAGMA answers "Success"
        "SET autoinstall_known_extensions = false",
        *spill,
        *(
            f"PRAGMA add_parquet_key('{encrypted.PREFIX}{key.id}', "
            f"getenv('{NAME}_{number}_PARQUET'))"
            for number, key in enumerate(keys)
        ),
        f"ATTACH {quoted(path)} AS books (READ_ONLY{option})",
        "USE books",
        f"SET VARIABLE {ROOT_VARIABLE} = {quoted(path.parent)}",
        "SET TimeZone = 'UTC'",
        ".output",
    ], secrets
