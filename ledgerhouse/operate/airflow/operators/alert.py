"""The alert operator, the last task of a run: notice incidents, and send notices of them."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf

from extract.core.interval import UTC
from extract.core.redact import redact
from ledgerhouse.config import AccountsFile, var_dir
from ledgerhouse.operate.airflow.context import attempt_key, lock_owner
from ledgerhouse.operate.alerts.channels import LOG, NotDelivered, channels
from ledgerhouse.warehouse.connection import hold, open_warehouse

BROKEN = "alerts_broken.json"  # which channels were sent that alerts do not work


class AlertOperator(BaseOperator):
    """Bring ops.incidents up to date, and send the notices of it.

    A teardown, so that it runs also after a failed run, and fails none. Where something could
    not be delivered it fails, to be tried again soon; what is still waiting then, the next run
    sends. It holds the warehouse while it reads and writes, not while it sends.
    """

    def execute(self, context: Any) -> dict[str, int]:
        from ledgerhouse.config import Rules

        try:
            rules = AccountsFile.read(what="alerts").rules()
        except ValueError as error:  # the incidents must be sent all the same
            self.log.error("%s. Until it is fixed, [alerts] is as if it were not there", error)
            rules = Rules()
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
        from ledgerhouse.operate.alerts import incidents
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
            tried = {name: notices for name in senders if (notices := incidents.waiting(con, name))}
            note_own_attempt(con, attempt_key(context), now)
        sent = [
            name
            for name, notices in tried.items()
            if self._send(senders, name, self._message(context, notices))
        ]
        with open_warehouse(owner=lock_owner(context)) as con:
            if tried:
                incidents.note_sent(con, tried, sent, datetime.now(UTC))
            self._publish(con)
        self._send_works_again(context, senders)
        if late := sorted(set(tried) - set(sent)):
            raise NotDelivered(
                f"{', '.join(late)} did not take the alerts: the log above says "
                "why. They wait, and the next try sends them"
            )
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

    def _message(self, context: Any, notices: tuple) -> Any:
        from ledgerhouse.operate.alerts.incidents import Message

        ti, base = context["ti"], (conf.get("api", "base_url", fallback="") or "").rstrip("/")
        return Message(
            notices,
            f"{ti.dag_id} {ti.run_id}",
            base and (f"{base}/dags/{quote(ti.dag_id)}/runs/{quote(ti.run_id, safe='')}"),
        )

    def _send(self, senders: dict, name: str, message: Any) -> bool:
        send, secrets = senders[name]
        try:
            send(message)
        except Exception as error:
            self.log.error(
                "%s did not take %d alert(s): %s",
                name,
                len(message.notices),
                redact(f"{type(error).__name__}: {error}", secrets)[:300],
            )
            return False
        if name != LOG:
            self.log.info("%s took %d alert(s)", name, len(message.notices))
        return True

    def _log(self, message: Any) -> None:
        for notice in message.notices:
            level = logging.WARNING if notice.event == "opened" else logging.INFO
            self.log.log(level, "%s", notice)

    def _send_broken(self, context: Any, senders: dict, error: Exception) -> None:
        """Send once that alerts do not work, maybe because the warehouse cannot be opened: without
        it, so what was sent is kept in a file."""
        file, now = var_dir() / BROKEN, datetime.now(UTC)
        known = (
            _read_broken(file)
            if file.exists()
            else {
                "id": uuid4().hex,
                "since": now.isoformat(),
                "sent_to": [],
                "text": f"incidents cannot be looked up: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}",
            }
        )
        message = self._message(context, (_of_broken(known, "opened", now),))
        known["sent_to"] += [
            name
            for name in senders
            if name not in known["sent_to"] and self._send(senders, name, message)
        ]
        file.write_text(json.dumps(known))

    def _send_works_again(self, context: Any, senders: dict) -> None:
        file = var_dir() / BROKEN
        if not file.exists():
            return
        known = _read_broken(file)
        message = self._message(context, (_of_broken(known, "resolved", datetime.now(UTC)),))
        known["sent_to"] = [
            name
            for name in known["sent_to"]
            if name in senders and not self._send(senders, name, message)
        ]
        file.write_text(json.dumps(known))
        if not known["sent_to"]:
            file.unlink()


def _read_broken(file: Path) -> dict[str, Any]:
    known = json.loads(file.read_text())
    if "told" in known:  # the key of 0.1.0
        known["sent_to"] = known.pop("told")
    return known


def _of_broken(known: dict[str, Any], event: str, now: datetime) -> Any:
    from ledgerhouse.operate.alerts.incidents import Notice

    return Notice(
        known["id"],
        event,
        "alerts_broken",
        "",
        "",
        "",
        "critical",
        known["text"],
        datetime.fromisoformat(known["since"]),
        now if event == "resolved" else None,
    )


__all__ = ["AlertOperator", "NotDelivered", "channels"]
