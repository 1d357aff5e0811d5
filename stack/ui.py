"""`make ui`: the books of the last demo in Airflow's UI, until Ctrl-C. Nothing is fetched.

Only PostgreSQL and the API server run: no scheduler, no sandbox.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from stack.live import launch, make_metadata, serve_api
from stack.screen import Screen
from stack.settings import API_PORT, Settings, SettingsError, read_env, var_dir
from stack.signals import Stopped


def show() -> int:
    """Raises SettingsError where no demo has published books, StackBusy while one is running."""
    screen, values = Screen(), read_env(os.environ)
    settings = Settings(var_dir(values) / "demo", values)
    if not (settings.var / "published" / "books.duckdb").exists():
        raise SettingsError(f"no books in {settings.var}: make demo makes them")
    try:
        with ExitStack() as live:
            with screen.step("start PostgreSQL and Airflow's API server") as step:
                stack = live.enter_context(
                    launch(
                        settings,
                        os.environ,
                        "stack ui",
                        airflow=False,
                        api_port=API_PORT,
                        tell=step.note,
                    )
                )
                make_metadata(stack)
                serve_api(stack)
            screen.line(f"The books: {stack.ui}/plugin/ledgerhouse  {stack.login(screen.live)}")
            screen.line("Ctrl-C stops it.")
            stack.keep()
    except Stopped:
        screen.line("Stopped; nothing is left running.")
        return 0
