"""`python -m stack up | ui | models [ARGS] | replay [--accept-less] | airflow ARGS |
shell | clean`.

`make` has a target for each.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

WITH_ARGUMENTS = ("models", "replay", "airflow")
WITHOUT = ("up", "ui", "shell", "clean")


def main(command: str = "help", *arguments: str) -> int:
    """Run a command."""
    if command not in WITH_ARGUMENTS and (command not in WITHOUT or arguments):
        print(__doc__, file=sys.stderr)
        return 2
    from stack import commands

    return reported(getattr(commands, command), *arguments)


def reported(command: Callable[..., int], *arguments: str) -> int:
    """A command's exit code; known errors are printed as their message, without a traceback."""
    from stack import guard

    if os.environ.get("MAKELEVEL"):  # a killed make must not leave us running
        guard.die_with_parent()
    from ledgerhouse.operate.airflow import api
    from ledgerhouse.operate.commands import CommandFailed
    from ledgerhouse.warehouse.connection import NotReplayed, WarehouseBusy
    from ledgerhouse.warehouse.migrate import SchemaChanged
    from stack import follow, lock, postgres, processes, settings

    stack = (follow.RunFailed, lock.StackBusy, postgres.PostgresFailed, processes.StackFailed)
    airflow = (api.AirflowApiError, api.AirflowUnreachable, CommandFailed)
    known = (*stack, *airflow, settings.SettingsError, WarehouseBusy, NotReplayed, SchemaChanged)
    os.umask(0o077)  # what is written from here on, by whichever process, nobody else may read
    if warning := settings.readable_by_others():
        print(warning, file=sys.stderr)
    try:
        return command(*arguments)
    except known as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print("Stopped; nothing is left running.", file=sys.stderr)
        return 128 + getattr(stop, "number", 2)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
