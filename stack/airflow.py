"""Airflow's settings: the environment every process of the stack is given, and Airflow's home."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from stack.settings import HOST, PROJECT, USER, Settings, write_private

# What a task imports that is slow, once, in the scheduler its process is forked from:
# 8-10 s a task without it, 0.09 s with it. The scheduler does so while the metadata database is
# being prepared, and begins when that is ready: 3 s sooner than one after the other.
PRELOAD = '''"""Written by stack.airflow: imported by every Airflow process when it starts."""
import os
import sys
import time

if "scheduler" in sys.argv[1:2]:
    import duckdb  # noqa: F401
    import great_expectations  # noqa: F401
    import sqlmesh  # noqa: F401

    ready = os.environ.get("LEDGERHOUSE_METADATA_READY")
    while ready and not os.path.exists(ready):
        time.sleep(0.05)
'''


def environment(
    settings: Settings, base: Mapping[str, str], api_port: int, socket_dir: Path
) -> dict[str, str]:
    """Everything the processes of one stack see: `base`, the .env values, and Airflow's settings.

    What decides where data goes (homes, databases, ports, secrets) is ours and beats `base`.
    """
    database = f"postgresql+{{driver}}://postgres@/airflow?host={quote(str(socket_dir), safe='/')}"
    api, home = f"http://{HOST}:{api_port}", str(settings.airflow_home)
    dags = base.get("LEDGERHOUSE_DAGS") or str(PROJECT / "dags")
    values = {name: value for name, value in settings.values.items() if value}
    paths = [str(PROJECT), *base.get("PYTHONPATH", "").split(os.pathsep)]
    latency = {  # RECIPES, Latency: 0.18 s a task against 0.45-0.8 s
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__CORE__PARALLELISM": "4",
    }
    return {
        **base,
        **values,
        **latency,
        **models_environment(socket_dir),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(p for p in paths if p)),
        "PYTHONUNBUFFERED": "1",
        "LEDGERHOUSE_VAR": str(settings.var),
        # For `airflow db clean` of the DAG maintenance: tasks may not see Airflow's own setting.
        "LEDGERHOUSE_METADATA_URI": database.format(driver="psycopg2"),
        "LEDGERHOUSE_METADATA_READY": str(settings.metadata_ready),
        "AIRFLOW_HOME": home,
        "AIRFLOW_VAR_START_TS": values.get("START_TS", ""),
        "AIRFLOW_CONN_AIRFLOW_API": json.dumps(
            {"conn_type": "http", "host": api, "login": USER, "password": settings.password}
        ),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.format(driver="psycopg2"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database.format(driver="asyncpg"),
        "AIRFLOW__CORE__DAGS_FOLDER": dags,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        # As Airflow has it by itself, but not where the shell says otherwise.
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{home}/logs",
        # The Test button: here the only user is the admin who may store keys anyway.
        "AIRFLOW__CORE__TEST_CONNECTION": base.get("AIRFLOW__CORE__TEST_CONNECTION", "Enabled"),
        "AIRFLOW__CORE__FERNET_KEY": settings.secret("fernet"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": f"{home}/passwords.json",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(api_port),
        "AIRFLOW__API__BASE_URL": api,
        "AIRFLOW__API__SECRET_KEY": settings.secret("api"),
        # SHA-512 wants 64 bytes, or every request warns
        "AIRFLOW__API_AUTH__JWT_SECRET": settings.secret("jwt") + settings.secret("jwt-2"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "false",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "GX_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def models_environment(socket_dir: Path | None = None) -> dict[str, str]:
    """What SQLMesh sees: its state is in the database `sqlmesh` of the embedded PostgreSQL, or in
    the warehouse where there is none; usage is not reported."""
    folder = quote(str(socket_dir), safe="/")
    uri = f"postgresql://postgres@/sqlmesh?host={folder}" if socket_dir else ""
    return {"LEDGERHOUSE_STATE_URI": uri, "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true"}


def write_airflow_files(settings: Settings) -> None:
    """Airflow's home: the preload module and the password file."""
    settings.metadata_ready.unlink(missing_ok=True)
    config = settings.airflow_home / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "airflow_local_settings.py").write_text(PRELOAD)
    write_private(settings.airflow_home / "passwords.json", json.dumps({USER: settings.password}))
