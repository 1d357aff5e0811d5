"""Commands of the `airflow` command line: given to Airflow by ledgerhouse/operate/airflow/provider.py.

Every `airflow` process calls `get_cli_commands`; a command's code is imported when it runs.

    airflow dags backfill          as in Airflow 2: the command that Airflow 3 has removed
    airflow warehouse …            what the books hold, and why
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class CommandFailed(Exception):
    """What went wrong and what to do, for whom typed the command; `code` is the exit code.

    2: what was typed cannot be done, now or later; 1: it could, but has failed.
    """

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def get_cli_commands() -> list[Any]:
    """Airflow's CLICommand tuples to add to its own; gives `dags` its `backfill` back."""
    from ledgerhouse.operate.commands.arguments import BACKFILL, WAREHOUSE

    parser = sys.modules.get("airflow.cli.cli_parser")  # it calls us while it is being imported
    commands = getattr(parser, "airflow_commands", [])
    for place, group in enumerate(commands):
        if group.name == "dags":
            if not any(command.name == BACKFILL.name for command in group.subcommands):
                # A second group of that name would be refused as a conflict.
                commands[place] = group._replace(subcommands=(*group.subcommands, BACKFILL))
    return [WAREHOUSE]


def command(name: str) -> Callable[[Any], None]:
    """A function that imports and runs ledgerhouse.operate.commands.`name` ("module.function").

    What the function returns is the exit code; known errors end as their message on stderr.
    """

    def run(args: Any) -> None:
        from importlib import import_module

        import_module("ledgerhouse.operate.airflow")  # it says where the encryption key may be
        module, function = name.split(".")
        known = (CommandFailed, FileExistsError, FileNotFoundError, *_busy())
        try:
            code = getattr(import_module(f"ledgerhouse.operate.commands.{module}"), function)(args)
        except known as error:
            print(f"airflow: {error}", file=sys.stderr)
            code = getattr(error, "code", 1)
        except BrokenPipeError:  # … | head
            code = 1
        if code:
            raise SystemExit(code)

    run.__name__ = name.split(".")[1]
    return run


def _busy() -> tuple[type[Exception], ...]:
    from extract.fetch.encryption import EncryptionError
    from ledgerhouse.warehouse.connection import NotReplayed, WarehouseBusy

    return WarehouseBusy, NotReplayed, EncryptionError
