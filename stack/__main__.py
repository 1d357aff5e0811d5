"""`python -m stack demo | up | ui | init | plan [ARGS] | models [ARGS] | replay |
airflow ARGS | shell | clean`.

`make` has a target for each.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

USAGE = __doc__


def main(arguments: list[str]) -> int:
    if os.environ.get("MAKELEVEL"):  # a killed make must not leave us running
        from stack.child import die_with_parent

        die_with_parent()
    command, *rest = arguments or ["help"]
    if command not in COMMANDS or (rest and command not in ("plan", "models", "airflow")):
        print(USAGE, file=sys.stderr)
        return 2
    return _reported(COMMANDS[command], rest)


def _reported(run: Callable[[list[str]], int], rest: list[str]) -> int:
    """Run a command; known errors as their message instead of a traceback."""
    from ledgerhouse.operate.airflow.api import AirflowApiError, AirflowUnreachable
    from ledgerhouse.warehouse.connection import WarehouseBusy
    from ledgerhouse.warehouse.migrate import SchemaChanged
    from stack.follow import RunFailed
    from stack.leftovers import StackBusy
    from stack.postgres import PostgresFailed
    from stack.processes import StackFailed
    from stack.settings import SettingsError

    known = (
        RunFailed,
        StackBusy,
        PostgresFailed,
        StackFailed,
        AirflowApiError,
        AirflowUnreachable,
        SettingsError,
        WarehouseBusy,
        SchemaChanged,
    )
    try:
        return run(rest)
    except known as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", 2)
        print("Stopped; nothing is left running.", file=sys.stderr)
        return 128 + number


def demo(_: list[str]) -> int:
    from stack import demo as module

    return module.main()


def up(_: list[str]) -> int:
    from stack import up as module

    return module.up()


def ui(_: list[str]) -> int:
    from stack import ui as module

    return module.show()


def init(_: list[str]) -> int:
    from stack import up as module

    return module.init()


def plan(arguments: list[str]) -> int:
    from stack import up as module

    return module.plan(arguments)


def models(arguments: list[str]) -> int:
    from stack import up as module

    return module.models(arguments)


def replay(_: list[str]) -> int:
    from stack import up as module

    return module.replay()


def airflow(arguments: list[str]) -> int:
    from stack import attach as module

    return module.airflow(arguments)


def shell(_: list[str]) -> int:
    from stack import attach as module

    return module.shell(_)


def clean(_: list[str]) -> int:
    from stack import up as module

    return module.clean()


COMMANDS = {
    "demo": demo,
    "up": up,
    "ui": ui,
    "init": init,
    "plan": plan,
    "models": models,
    "replay": replay,
    "airflow": airflow,
    "shell": shell,
    "clean": clean,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
