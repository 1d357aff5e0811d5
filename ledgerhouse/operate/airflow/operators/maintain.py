"""The operators of the DAG `maintenance`: what is kept elsewhere goes, and the file is compacted.

None takes the slot of the pool `warehouse`: they take their turn at its lock, a moment each. How
long things are kept is [maintenance] of accounts.toml; a wrong line there fails the task in words.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from extract.core import sealed
from ledgerhouse.config import AccountsFile, Maintenance, metadata_uri, var_dir, warehouse_path
from ledgerhouse.operate import retention
from ledgerhouse.operate.airflow.context import attempt_key, lock_owner
from ledgerhouse.operate.run_log.attempts import attempt
from ledgerhouse.warehouse.connection import open_warehouse

BATCH = 5_000  # rows deleted in one transaction of Airflow's database


def _settings() -> Maintenance:
    try:
        return AccountsFile.read(what="maintenance").maintenance()
    except ValueError as error:
        raise AirflowFailException(str(error)) from None


def _ago(**age: int) -> datetime:
    return datetime.now(UTC) - timedelta(**age)


class CleanAirflowRowsOperator(BaseOperator):
    """`airflow db clean`: old runs, tasks and events leave Airflow's database. Each DAG's last run
    stays; the run history of the books is ops.sync_runs.

    Tasks may not open that database, so the command gets its address from
    $LEDGERHOUSE_METADATA_URI; without it the task skips itself.
    """

    def execute(self, context: Any) -> None:
        days, uri = _settings().airflow_rows_days, metadata_uri()
        command = ["db", "clean", "--clean-before-timestamp", _ago(days=days).isoformat()]
        command += ["--skip-archive", "--yes", "--batch-size", str(BATCH)]
        command += ["--error-on-cleanup-failure"]
        if uri is None:
            raise AirflowSkipException(
                "LEDGERHOUSE_METADATA_URI is not set, and a task may not open Airflow's database "
                f"otherwise. Set it for the workers, or run this where you may, now and then: "
                f"airflow {' '.join(command)}"
            )
        with attempt(var_dir() / "attempts", attempt_key(context)):
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *command],
                env=_outside_a_task(uri),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            said = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
            self.log.info("%s", said)
            if done.returncode:
                raise RuntimeError(f"airflow db clean ended with {done.returncode}: {said[-400:]}")


def _outside_a_task(uri: str) -> dict[str, str]:
    """The environment of a command that a task starts and that is no task itself."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("_AIRFLOW", "__AIRFLOW"))}
    env.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", None)
    return env | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": uri}


class RemoveLogsOperator(BaseOperator):
    """Remove old logs of tasks and callbacks, and of the parsing of DAG files, on this machine."""

    def execute(self, context: Any) -> dict[str, int]:
        keep = _settings()
        base = Path(conf.get("logging", "base_log_folder"))
        parsing = conf.get("logging", "dag_processor_child_process_log_directory", fallback="")
        processor = Path(parsing or base / "dag_processor")
        tasks = [*base.glob("dag_id=*"), base / "executor_callbacks"]
        with attempt(var_dir() / "attempts", attempt_key(context)):
            of_tasks = retention.logs(tasks, _ago(days=keep.task_log_days))
            of_parsing = retention.logs([processor], _ago(days=keep.processor_log_days))
        return _told(self.log, {"logs of tasks": of_tasks, "logs of parsing": of_parsing})


class RemoveFilesOperator(BaseOperator):
    """Remove call logs and records of attempts of which all is in the warehouse, and drafts of
    killed writers."""

    def execute(self, context: Any) -> dict[str, int]:
        keep, var = _settings(), var_dir()
        with attempt(var / "attempts", attempt_key(context)):
            drafts = retention.leftovers(var, _ago(hours=keep.draft_hours))
            with open_warehouse(owner=lock_owner(context)) as con:
                calls = retention.call_logs(con, var / "calls", _ago(days=keep.call_log_days))
                records = retention.attempts(con, var / "attempts", _ago(days=keep.attempt_days))
        return _told(
            self.log, {"call logs": calls, "records of attempts": records, "drafts": drafts}
        )


class PackLandedFilesOperator(BaseOperator):
    """Put old landed files into an archive of their source and month; a replay reads both.

    Fails where a file or an archive is damaged, after it has packed all others.
    """

    def execute(self, context: Any) -> dict[str, int]:
        keep, var = _settings(), var_dir()
        with attempt(var / "attempts", attempt_key(context)):
            done = retention.landed(
                var / "landing",
                warehouse_path(),
                _ago(days=keep.landed_file_days),
                lock_owner(context),
            )
            self.log.info("%d landed files packed, %d bytes", done.files, done.bytes)
            if done.left:
                name, why = min(done.left.items())
                raise sealed.Damaged(
                    f"{len(done.left)} of the landed files or archives are damaged and were left "
                    f"as they are, {name} for one: {why}. `airflow warehouse verify` names all, "
                    "and what restores them"
                )
        return {"landed files": done.files}


def _told(log: Any, removed: dict[str, retention.Removed]) -> dict[str, int]:
    for what, each in removed.items():
        log.info("%s removed: %d files, %d bytes", what, each.files, each.bytes)
    return {what: each.files for what, each in removed.items()}


class CompactOperator(BaseOperator):
    """Compact the warehouse file, whatever the checks say."""

    def execute(self, context: Any) -> dict[str, Any]:
        from dataclasses import asdict

        from ledgerhouse.warehouse.compaction import compact

        free_percent, path = _settings().free_percent, warehouse_path()
        if not path.exists():
            raise AirflowSkipException("there is no warehouse yet: the first sync makes it")
        with attempt(var_dir() / "attempts", attempt_key(context)):
            done = compact(path, owner=lock_owner(context), free_percent=free_percent)
        self.log.info(
            "%s: %d bytes, %d before, of which %d were free",
            path,
            done.after,
            done.before,
            done.free,
        )
        return asdict(done)


__all__ = [
    "CleanAirflowRowsOperator",
    "CompactOperator",
    "PackLandedFilesOperator",
    "RemoveFilesOperator",
    "RemoveLogsOperator",
]
