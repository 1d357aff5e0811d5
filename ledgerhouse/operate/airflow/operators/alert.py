"""The alert operator, the last task of a run: notice incidents, and send notices of them."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from airflow.sdk import BaseOperator

from extract.core.interval import UTC
from ledgerhouse.config import AccountsFile, var_dir
from ledgerhouse.operate.airflow.context import attempt_key, lock_owner
from ledgerhouse.operate.airflow.late_run import late_file, rules_or_defaults, send_late_runs
from ledgerhouse.operate.alerts import unrecorded
from ledgerhouse.operate.alerts.channels import (
    LOG,
    NotDelivered,
    channels,
    deliverer,
    message_of,
    ping,
    send_message,
)
from ledgerhouse.warehouse.connection import hold, open_warehouse

BROKEN = "alerts_broken.json"  # which channels were sent that alerts do not work


class AlertOperator(BaseOperator):
    """Bring ops.incidents up to date, and send the notices of it.

    A teardown, so that it runs also after a failed run, and fails none. Where something could
    not be delivered it fails, to be tried again soon; what is still waiting then, the next run
    sends. It holds the warehouse while it reads and writes, not while it sends.
    """

    def execute(self, context: Any) -> dict[str, int]:
        rules = rules_or_defaults(self.log)
        senders = channels(rules, self.log)
        senders[LOG] = self._log, ()
        with hold(var_dir() / "alerts", lock_owner(context)):  # or two runs would both send
            try:
                return self._notice_and_send(context, rules, senders)
            except NotDelivered:
                raise
            except Exception as error:
                if context["ti"].try_number > (context["ti"].max_tries or 0):
                    self._send_broken(context, senders, error)
                raise

    def _notice_and_send(self, context: Any, rules: Any, senders: dict) -> dict[str, int]:
        from ledgerhouse.operate.alerts import heartbeat, incidents
        from ledgerhouse.operate.alerts.conditions import present_incidents
        from ledgerhouse.operate.run_log.mirror import note_own_attempt

        accounts, _ = AccountsFile.read().entries()
        with open_warehouse(owner=lock_owner(context)) as con:
            now = datetime.now(UTC)
            opened, resolved = incidents.reconcile(
                con,
                present_incidents(con, accounts, rules, now),
                senders,
                run_id=context["ti"].run_id,
                now=now,
            )
            newest = heartbeat.newest_read(con)
            tried = {name: notices for name in senders if (notices := incidents.waiting(con, name))}
            note_own_attempt(con, attempt_key(context), now)
        sent = [
            name
            for name, notices in tried.items()
            if send_message(
                senders,
                self.log,
                name,
                message_of(notices, context["ti"].dag_id, context["ti"].run_id),
            )
        ]
        with open_warehouse(owner=lock_owner(context)) as con:
            if tried:
                incidents.note_sent(con, tried, sent, datetime.now(UTC))
            self._publish(con)
        self._send_over(context, senders)
        heard = not heartbeat.is_alive(newest, rules.stale_after, now) or ping(rules, self.log)
        if late := sorted(set(tried) - set(sent)):
            raise NotDelivered(
                f"{', '.join(late)} did not take the alerts: the log above says "
                "why. They wait, and the next try sends them"
            )
        if not heard:
            raise NotDelivered(f"{rules.heartbeat} did not hear that syncs come; it is tried again")
        return {"opened": opened, "resolved": resolved, "sent": sum(map(len, tried.values()))}

    def _publish(self, con: Any) -> None:
        """Readers see how this run went now, not after the next; a failure is logged, no more."""
        from ledgerhouse.publish.books import published_dir
        from ledgerhouse.publish.publish import publish_news

        try:
            publish_news(con, published_dir())
        except Exception as error:
            self.log.warning(
                "how this run went is published by the next one only: %s: %s",
                type(error).__name__,
                str(error)[:300],
            )

    def _log(self, message: Any) -> None:
        for notice in message.notices:
            level = logging.WARNING if notice.event == "opened" else logging.INFO
            self.log.log(level, "%s", notice)

    def _send_broken(self, context: Any, senders: dict, error: Exception) -> None:
        """Send once that alerts do not work, maybe because the warehouse cannot be opened."""
        unrecorded.open_incident(
            var_dir() / BROKEN,
            senders,
            self._deliver(context, senders),
            kind="alerts_broken",
            text=f"incidents cannot be looked up: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}",
            now=datetime.now(UTC),
        )

    def _send_over(self, context: Any, senders: dict) -> None:
        """Alerts work, and this run is no longer late; of other DAGs' late runs, tell who does not
        know yet."""
        mine, deliver = late_file(context["ti"].dag_id), self._deliver(context, senders)
        for file in (var_dir() / BROKEN, mine):
            if file.exists():
                unrecorded.resolve(file, senders, deliver, datetime.now(UTC))
        for file in sorted(var_dir().glob("alerts_late_*.json")):
            if file != mine:
                unrecorded.send_again(file, senders, deliver)

    def _deliver(self, context: Any, senders: dict) -> unrecorded.Deliver:
        return deliverer(senders, self.log, context["ti"].dag_id, context["ti"].run_id)


class SendLateOperator(BaseOperator):
    """Send that runs are late to the channels that a callback could not read; opens no warehouse."""

    def execute(self, context: Any) -> int:
        return send_late_runs(context["ti"].dag_id, context["ti"].run_id)


__all__ = ["AlertOperator", "SendLateOperator", "NotDelivered", "channels"]
