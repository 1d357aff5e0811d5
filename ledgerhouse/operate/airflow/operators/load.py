"""The operators after the fetches: load, transform, check, publish, mirror; and replay.

All open the warehouse, so they share the pool `warehouse`, which has one slot. Heavy imports
happen inside `execute`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from extract.core.interval import Interval, iso, utc
from extract.sources import all_sources
from ledgerhouse.config import var_dir, warehouse_path
from ledgerhouse.operate.airflow.context import TAG, attempt_key, lock_owner, resolve_interval
from ledgerhouse.operate.airflow.operators.recorded import RecordedOperator
from ledgerhouse.process import gc_off
from ledgerhouse.warehouse.connection import open_warehouse, require_all_loads


class LoadOperator(RecordedOperator):
    """Load everything that waits in the landing, and the call logs."""

    def work(self, context: Any, outcome: dict[str, Any]) -> dict[str, int]:
        from dataclasses import asdict

        from ledgerhouse.load.call_log import load_calls
        from ledgerhouse.load.loader import load
        from ledgerhouse.load.quarantined import record_quarantined
        from ledgerhouse.load.unit_balances import load_unit_balances

        with open_warehouse(owner=lock_owner(context)) as con:
            require_all_loads(con, var_dir() / "landing")
            load_calls(con, var_dir() / "calls")
            load_unit_balances(con, var_dir() / "account_units", context["ti"].run_id)
            try:
                loaded = load(con, var_dir() / "landing", all_sources())
            finally:
                record_quarantined(con, var_dir())
        outcome["rows"] = loaded.new + loaded.changed
        return asdict(loaded)


class ReplayOperator(RecordedOperator):
    """Rebuild raw, history and coverage from the landing alone, without a call."""

    def work(self, context: Any, outcome: dict[str, Any]) -> dict[str, Any]:
        from dataclasses import asdict

        from ledgerhouse.load.replay import ReplayFailed, replay

        try:
            done = replay(
                warehouse_path(),
                var_dir() / "landing",
                all_sources(),
                accept_less=bool(context["params"].get("accept_less")),
                owner=lock_owner(context),
                tell=self.log.info,
            )
        except ReplayFailed as error:
            raise AirflowFailException(
                str(error).replace("say --accept-less", "trigger with accept_less")
            ) from None
        outcome["rows"] = done.loaded.rows
        for name, why in done.less.items():
            self.log.error("the warehouse is without %s: %s", name, why)
        if done.not_carried:
            self.log.error(
                "only the old warehouse had these, and they begin empty: %s",
                ", ".join(done.not_carried),
            )
        if done.kept:
            self.log.warning("the old warehouse is kept: %s", done.kept)
        for table, rows in done.differences.items():
            self.log.warning("%s: %d rows are not as they were", table, rows)
        return asdict(done)


class TransformOperator(RecordedOperator):
    """Reprocess the curated days that loads have touched. The marks stay until they are published."""

    def work(self, context: Any, outcome: dict[str, Any]) -> dict[str, Any]:
        from ledgerhouse.transform.touched_days import transform

        gc_off()
        done = transform(owner=lock_owner(context))
        outcome["rows"] = len(done.marks)
        return {
            "batches": done.batches,
            "spans": [[iso(span.start), iso(span.end)] for span in done.spans],
            "changed": {
                table: [[str(first), str(after)] for first, after in spans]
                for table, spans in done.changed.items()
            },
        }


class CheckOperator(RecordedOperator):
    """Check raw and curated over the days transformed; what failed is logged and recorded.

    A critical expectation that failed on the rows of some accounts holds those back, and the task
    succeeds; it fails where nothing may be published. Skips itself when another run has loaded
    since: that run checks and publishes these days too.
    """

    template_fields: Sequence[str] = ("interval_start", "interval_end")

    def __init__(self, *, transform: str, interval_start: str, interval_end: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.transform = transform
        self.interval_start, self.interval_end = interval_start, interval_end

    def work(self, context: Any, outcome: dict[str, Any]) -> dict[str, int]:
        from ledgerhouse.check.run import check
        from ledgerhouse.publish.gate import NotChecked, known_accounts, require_passed
        from ledgerhouse.transform.touched_days import Superseded

        gc_off()
        done = context["ti"].xcom_pull(task_ids=self.transform) or {}
        spans = [Interval(utc(first), utc(after)) for first, after in done.get("spans", [])]
        if spans:
            interval = Interval(spans[0].start, spans[-1].end)
        else:
            interval = resolve_interval(context["params"], self.interval_start, self.interval_end)
        try:
            results = check(
                interval,
                run_id=context["ti"].run_id,
                owner=lock_owner(context),
                spans=spans,
                batches=done.get("batches"),
            )
        except Superseded as error:
            raise AirflowSkipException(str(error)) from None
        outcome["rows"] = len(results)
        failed = [r for r in results if not r.success]
        for result in failed:
            self.log.warning("%s: %s", result.severity, result)
        with open_warehouse(owner=lock_owner(context)) as con:
            everybody = known_accounts(con)
        try:
            held = require_passed(results, context["ti"].run_id, everybody)
        except NotChecked as error:
            raise AirflowFailException(str(error)) from None
        for (source, account), reason in held.items():
            self.log.error(
                "%s %s is held back: its last good days stay in the books, all other "
                "accounts are published. What failed: %s",
                source,
                account,
                reason,
            )
        return {
            "passed": len(results) - len(failed),
            "warnings": len(failed),
            "held": len(held),
        }


class PublishOperator(RecordedOperator):
    """Publish the days that the run has transformed and checked; then, and only then, drop the marks.

    Where accounts are held back the books of all others are out, and the task fails, so that the
    run is red. Skips itself when another run has loaded since: that run publishes these days too.
    """

    def __init__(self, *, transform: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.transform = transform

    def work(self, context: Any, outcome: dict[str, Any]) -> dict[str, int]:
        from ledgerhouse.publish.gate import NotChecked, publish_checked
        from ledgerhouse.transform.touched_days import Superseded

        done = context["ti"].xcom_pull(task_ids=self.transform) or {}
        changed = done.get("changed")  # not there where an older version has transformed
        if changed is not None:
            changed = {
                table: [
                    (date.fromisoformat(first), date.fromisoformat(after)) for first, after in spans
                ]
                for table, spans in changed.items()
            }
        try:
            published = publish_checked(
                done.get("batches", []),
                changed,
                owner=lock_owner(context),
                run_id=context["ti"].run_id,
            )
            outcome["rows"] = published.rows
        except (NotChecked, ValueError) as error:  # the latter: of accounts.toml, [checks]
            raise AirflowFailException(str(error)) from None
        except Superseded as error:
            raise AirflowSkipException(str(error)) from None
        if published.held:
            raise AirflowFailException(
                f"generation {published.generation} is published, but "
                f"{len(published.held)} account(s) keep their last good days: "
                f"{'. '.join(map(str, published.held))}. See the Data Docs of this run, fix the "
                "cause and run sync again: it checks and publishes their days once more"
            )
        return {
            "generation": published.generation,
            "files": len(published.files),
            "months": len(published.months),
            "rows": published.rows,
            "bytes": published.bytes,
            "removed": published.removed,
        }


class MirrorOperator(BaseOperator):
    """Copy Airflow's run history into ops.sync_runs: a teardown, so it also sees failed runs."""

    def execute(self, context: Any) -> int:
        from ledgerhouse.load.quarantined import record_quarantined
        from ledgerhouse.operate.airflow.api import AirflowApi
        from ledgerhouse.operate.run_log.mirror import mirror

        key, airflow = attempt_key(context), AirflowApi.for_task()
        ours = {dag["dag_id"] for dag in airflow.all("/dags", "dags", tags=TAG)}
        with open_warehouse(owner=lock_owner(context)) as con:
            attempts = mirror(
                con,
                airflow,
                var_dir() / "attempts",
                sorted(ours | {key["dag_id"]}),
                own=tuple(key.values()),
            )
            record_quarantined(con, var_dir())
            return attempts
