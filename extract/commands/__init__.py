"""Commands of the `airflow` command line: given to Airflow by extract/provider.py.

Every `airflow` process calls `get_cli_commands`; a command's code is imported when it runs.
"""

from __future__ import annotations

from typing import Any


def get_cli_commands() -> list[Any]:
    """Airflow's CLICommand tuples to add to its own."""
    return []
