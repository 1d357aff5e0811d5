"""`make look`: the books of the last demo in Airflow's UI, until Ctrl-C. Nothing is fetched.

Only PostgreSQL and the API server run: no scheduler, no sandbox.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from stack.live import launch, make_metadata, serve_api
from stack.screen import Screen
from stack.settings import USER, Settings, SettingsError, read_env, var_dir
from stack.signals import Stopped

API_PORT = 8080
CHECK_S = 1.0


def look() -> int:
    """Raises SettingsError where no demo has published books, StackBusy while one is running."""
    screen, values = Screen(), read_env(os.environ)
    settings = Settings(var_dir(values) / "demo", values)
    if not (settings.var / "published" / "books.duckdb").exists():
        raise SettingsError(f"no books in {settings.var}: make demo makes them")
    try:
        with ExitStack() as live:
            with screen.step("start PostgreSQL and Airflow's API server") as step:
                stack = live.enter_context(launch(
                    settings, os.environ, "stack look", airflow=False, api_port=API_PORT,
                    tell=step.note))
                make_metadata(stack)
                serve_api(stack)
            secret = settings.airflow_home / "passwords.json"
            login = f"password {settings.password}" if screen.live else f"password in {secret}"
            screen.line(f"The books: {stack.ui}/plugin/ledgerhouse  user {USER}, {login}")
            screen.line("Ctrl-C stops it.")
            while True:
                stack.processes.check()
                time.sleep(CHECK_S)
    except Stopped:
        screen.line("Stopped; nothing is left running.")
        return 0
