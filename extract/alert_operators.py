"""The last task of a run as an Airflow operator: notice incidents, and tell them.

Told to the task's log always, and by those of the Airflow Connections `alerts_slack` (type
slackwebhook), `alerts_smtp` (smtp) and `alerts_webhook` (http: JSON by POST) that exist; [alerts]
of accounts.toml may name others. Slack and mail go by the providers' own notifiers, whose
`notify` is called and not the notifier itself: that would render the text as a Jinja template,
and a text quotes what a vendor said.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import datetime
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from extract.core.interval import UTC
from extract.core.redact import strike
from extract.task import facts_of, who
from ledgerhouse.config import accounts_file
from ledgerhouse.warehouse.connection import hold, open_warehouse
from ledgerhouse.config import var_dir

TIMEOUT_S = 10
LOG = "log"
BROKEN = "alerts_broken.json"  # who was told that nobody can look

Send = Callable[[Any], None]  # of a Message; raises where it did not arrive


class NotDelivered(RuntimeError):
    """Some channel did not take its notices; they wait for the next try."""


def channels(rules: Any, log: logging.Logger) -> dict[str, tuple[Send, tuple[str, ...]]]:
    """Connection id → how to send a Message by it, and the secrets to keep out of texts."""
    found: dict[str, tuple[Send, tuple[str, ...]]] = {}
    makers = {"slack": _slack, "smtp": _smtp, "webhook": _webhook}
    for way, connection_id in rules.ways:
        try:
            connection = BaseHook.get_connection(connection_id)
        except AirflowNotFoundException:
            if way in rules.named:
                log.warning("accounts.toml names %s for alerts by %s, and Airflow has no such "
                            "Connection: make it, or mend the name", connection_id, way)
            continue
        if way == "smtp" and not rules.email_to:
            log.warning("nobody is mailed: there is a Connection %s, but no email_to in [alerts] "
                        "of accounts.toml", connection_id)
            continue
        found[connection_id] = makers[way](connection_id, connection, rules), _secrets(connection)
    return found


def _slack(connection_id: str, connection: Any, rules: Any) -> Send:
    def send(message: Any) -> None:
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        # As Slack asks: else <!channel> in a token's name would wake everybody.
        text = "\n".join([f"*{escape(message.subject, quote=False)}*",
                          *(escape(line, quote=False) for line in message.lines)])
        SlackWebhookNotifier(slack_webhook_conn_id=connection_id, text=text, timeout=TIMEOUT_S,
                             unfurl_links=False).notify({})
    return send


def _smtp(connection_id: str, connection: Any, rules: Any) -> Send:
    def send(message: Any) -> None:
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        body = "".join(f"<p>{escape(line)}</p>\n" for line in message.lines)
        SmtpNotifier(smtp_conn_id=connection_id, to=list(rules.email_to),
                     from_email=rules.email_from, subject=message.subject,
                     html_content=body).notify({})
    return send


def _webhook(connection_id: str, connection: Any, rules: Any) -> Send:
    def send(message: Any) -> None:
        import requests

        host = (connection.host or "").strip()
        if "://" not in host:
            host = f"{connection.schema or 'https'}://{host}"
        if connection.port:
            parts = urlsplit(host)
            host = parts._replace(netloc=f"{parts.hostname}:{connection.port}").geturl()
        headers = dict(connection.extra_dejson.get("headers") or {})
        auth = (connection.login, connection.password or "") if connection.login else None
        if connection.password and not auth:
            headers["Authorization"] = f"Bearer {connection.password}"
        answer = requests.post(host, json=message.as_dict(), headers=headers, auth=auth,
                               timeout=TIMEOUT_S, allow_redirects=False)
        if not 200 <= answer.status_code < 300:
            raise NotDelivered(f"HTTP {answer.status_code}")
    return send


def _secrets(connection: Any) -> tuple[str, ...]:
    """What no text may hold: an address that lets anybody post is a secret, too."""
    address = [part for part in re.split(r"[/?&=]", connection.host or "") if len(part) >= 8]
    extra = [str(value) for one in connection.extra_dejson.values()
             for value in (one.values() if isinstance(one, dict) else [one])]
    return tuple(filter(None, (connection.password, *address,
                               *(value for value in extra if len(value) >= 8))))


class AlertOperator(BaseOperator):
    """Bring ops.incidents up to date, and send what is to be told of it.

    A teardown, so that it comes also after a failed run, and fails none. Where something could
    not be delivered it fails, to be tried again soon; what is still waiting then, the next run
    sends. It holds the warehouse while it looks, not while it sends.
    """

    def execute(self, context: Any) -> dict[str, int]:
        from ledgerhouse.config import Rules, read_rules

        try:
            rules = read_rules(accounts_file())
        except ValueError as error:  # the rest must be told all the same
            self.log.error("%s. Until it is mended, [alerts] is as if it were not there", error)
            rules = Rules()
        ways = channels(rules, self.log)
        ways[LOG] = self._log, ()
        with hold(var_dir() / "alerts", who(context)):  # or two runs would both send
            try:
                told = self._work(context, rules, ways)
            except NotDelivered:
                raise
            except Exception as error:
                if context["ti"].try_number > (context["ti"].max_tries or 0):
                    self._broken(context, ways, error)
                raise
        return told

    def _work(self, context: Any, rules: Any, ways: dict) -> dict[str, int]:
        from extract import incidents
        from extract.alerts import judge
        from extract.mirror import note
        from ledgerhouse.config import read_accounts

        listed, _ = read_accounts(accounts_file())
        with open_warehouse(who=who(context)) as con:
            now = datetime.now(UTC)
            opened, resolved = incidents.reconcile(
                con, judge(con, listed, rules, now), ways, run_id=context["ti"].run_id, now=now)
            tried = {name: notices for name in ways
                     if (notices := incidents.waiting(con, name))}
            note(con, facts_of(context), now)
        sent = [name for name, notices in tried.items()
                if self._send(ways, name, self._message(context, notices))]
        with open_warehouse(who=who(context)) as con:
            if tried:
                incidents.note(con, tried, sent, datetime.now(UTC))
            self._publish(con)
        self._mended(context, ways)
        if late := sorted(set(tried) - set(sent)):
            raise NotDelivered(f"{', '.join(late)} did not take the alerts: the log above says "
                               "why. They wait, and the next try sends them")
        return {"opened": opened, "resolved": resolved, "sent": sum(map(len, tried.values()))}

    def _publish(self, con: Any) -> None:
        """Readers see how this run went now, not after the next; a failure is told, no more."""
        from ledgerhouse.publish.books import published_dir
        from ledgerhouse.publish.publish import publish_news

        try:
            publish_news(con, published_dir())
        except Exception as error:
            self.log.warning("how this run went is published by the next one only: %s: %s",
                             type(error).__name__, str(error)[:300])

    def _message(self, context: Any, notices: tuple) -> Any:
        from extract.incidents import Message

        ti, base = context["ti"], (conf.get("api", "base_url", fallback="") or "").rstrip("/")
        return Message(notices, f"{ti.dag_id} {ti.run_id}", base and (
            f"{base}/dags/{quote(ti.dag_id)}/runs/{quote(ti.run_id, safe='')}"))

    def _send(self, ways: dict, name: str, message: Any) -> bool:
        send, secrets = ways[name]
        try:
            send(message)
        except Exception as error:
            self.log.error("%s did not take %d alert(s): %s", name, len(message.notices), strike(
                f"{type(error).__name__}: {error}", secrets)[:300])
            return False
        if name != LOG:
            self.log.info("%s took %d alert(s)", name, len(message.notices))
        return True

    def _log(self, message: Any) -> None:
        for one in message.notices:
            self.log.log(logging.WARNING if one.event == "opened" else logging.INFO, "%s", one)

    def _broken(self, context: Any, ways: dict, error: Exception) -> None:
        """Nobody can look, perhaps for the warehouse cannot be opened: told once, without it."""
        file, now = var_dir() / BROKEN, datetime.now(UTC)
        known = json.loads(file.read_text()) if file.exists() else {
            "id": uuid4().hex, "since": now.isoformat(), "told": [],
            "text": f"incidents cannot be looked up: {type(error).__name__}: "
                    f"{' '.join(str(error).split())[:300]}"}
        message = self._message(context, (_of_broken(known, "opened", now),))
        known["told"] += [name for name in ways if name not in known["told"]
                          and self._send(ways, name, message)]
        file.write_text(json.dumps(known))

    def _mended(self, context: Any, ways: dict) -> None:
        file = var_dir() / BROKEN
        if not file.exists():
            return
        known = json.loads(file.read_text())
        message = self._message(context, (_of_broken(known, "resolved", datetime.now(UTC)),))
        known["told"] = [name for name in known["told"] if name in ways
                         and not self._send(ways, name, message)]
        file.write_text(json.dumps(known))
        if not known["told"]:
            file.unlink()


def _of_broken(known: dict[str, Any], event: str, now: datetime) -> Any:
    from extract.incidents import Notice

    return Notice(known["id"], event, "alerts_broken", "", "", "", "critical", known["text"],
                  datetime.fromisoformat(known["since"]), now if event == "resolved" else None)


__all__ = ["AlertOperator", "NotDelivered", "channels"]
