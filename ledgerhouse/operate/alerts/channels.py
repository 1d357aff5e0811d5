"""Channels of alerts: the task's log, Slack, mail and a webhook.

An alert goes to the task's log always, and by those of the Airflow Connections `alerts_slack` (type
slackwebhook), `alerts_smtp` (smtp) and `alerts_webhook` (http: JSON by POST) that exist; [alerts]
of accounts.toml may name others. Slack and mail go by the providers' own notifiers, whose
`notify` is called and not the notifier itself: that would render the text as a Jinja template,
and a text quotes what a vendor said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSecretsBackendAccessDenied

from extract.core.redact import redact

TIMEOUT_S = 10
LOG = "log"
Send = Callable[[Any], None]  # of a Message; raises where it did not arrive


class NotDelivered(RuntimeError):
    """Some channel did not take its notices; they wait for the next try."""


def channels(
    rules: Any, log: Any, denied: list[str] | None = None
) -> dict[str, tuple[Send, tuple[str, ...]]]:
    """Connection id → how to send a Message by it, and the secrets to keep out of texts.

    `denied` is given the ids of those that this process may not read: a callback gets Connections
    of the environment and of a worker's secrets backend, but none of Airflow's database (its token
    has the scope `workload`, which the route of Connections refuses, in 3.3).
    """
    by_connection: dict[str, tuple[Send, tuple[str, ...]]] = {}
    senders = {"slack": _slack, "smtp": _smtp, "webhook": _webhook}
    for kind, connection_id in rules.ways:
        try:
            connection = BaseHook.get_connection(connection_id)
        except AirflowSecretsBackendAccessDenied:
            if denied is None:
                raise
            denied.append(connection_id)
            continue
        except AirflowNotFoundException:
            if kind in rules.named:
                log.warning(
                    "accounts.toml names %s for alerts by %s, and Airflow has no such "
                    "Connection: create it, or correct the name",
                    connection_id,
                    kind,
                )
            continue
        if kind == "smtp" and not rules.email_to:
            log.warning(
                "no mail is sent: there is a Connection %s, but no email_to in [alerts] "
                "of accounts.toml",
                connection_id,
            )
            continue
        send = senders[kind](connection_id, connection, rules)
        by_connection[connection_id] = send, secrets_of(connection)
    return by_connection


def deliverer(
    senders: dict[str, tuple[Send, tuple[str, ...]]], log: Any, dag_id: str, run_id: str
) -> Callable[[str, Any], bool]:
    """How one Notice is sent by one of `senders` on behalf of a run; whether it has arrived."""

    def deliver(name: str, notice: Any) -> bool:
        return send_message(senders, log, name, message_of((notice,), dag_id, run_id))

    return deliver


def message_of(notices: tuple, dag_id: str, run_id: str) -> Any:
    """The Message of a run's notices, with a link to the run where Airflow has an address."""
    from ledgerhouse.operate.alerts.incidents import Message

    base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
    link = base and f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}"
    return Message(notices, f"{dag_id} {run_id}", link)


def send_message(
    senders: dict[str, tuple[Send, tuple[str, ...]]], log: Any, name: str, message: Any
) -> bool:
    """Send by one channel; whether it has arrived. Why not is logged, without secrets."""
    send, secrets = senders[name]
    try:
        send(message)
    except Exception as error:
        log.error(
            "%s did not take %d alert(s): %s",
            name,
            len(message.notices),
            redact(f"{type(error).__name__}: {error}", secrets)[:300],
        )
        return False
    if name != LOG:
        log.info("%s took %d alert(s)", name, len(message.notices))
    return True


def ping(rules: Any, log: Any) -> bool:
    """Tell the watcher that syncs come, where there is one; False where it did not hear it."""
    try:
        connection = BaseHook.get_connection(rules.heartbeat)
    except AirflowNotFoundException:
        if "heartbeat" in rules.named:
            log.warning(
                "accounts.toml names %s for the heartbeat, and Airflow has no such Connection: "
                "create it, or correct the name",
                rules.heartbeat,
            )
        return True
    import requests

    url, options = request_of(connection)
    try:
        answer = requests.get(url, **options)
        if not 200 <= answer.status_code < 300:
            raise NotDelivered(f"HTTP {answer.status_code}")
    except Exception as error:
        text = redact(f"{type(error).__name__}: {error}", secrets_of(connection))
        log.error("%s did not hear that syncs come: %s", rules.heartbeat, text[:300])
        return False
    log.info("%s heard that syncs come", rules.heartbeat)
    return True


def _slack(connection_id: str, connection: Any, rules: Any) -> Send:
    def send(message: Any) -> None:
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        # As Slack asks: otherwise <!channel> in a token's name would wake everybody.
        text = "\n".join(
            [
                f"*{escape(message.subject, quote=False)}*",
                *(escape(line, quote=False) for line in message.lines),
            ]
        )
        SlackWebhookNotifier(
            slack_webhook_conn_id=connection_id, text=text, timeout=TIMEOUT_S, unfurl_links=False
        ).notify({})

    return send


def _smtp(connection_id: str, connection: Any, rules: Any) -> Send:
    def send(message: Any) -> None:
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        body = "".join(f"<p>{escape(line)}</p>\n" for line in message.lines)
        SmtpNotifier(
            smtp_conn_id=connection_id,
            to=list(rules.email_to),
            from_email=rules.email_from,
            subject=message.subject,
            html_content=body,
        ).notify({})

    return send


def _webhook(connection_id: str, connection: Any, rules: Any) -> Send:
    def send(message: Any) -> None:
        import requests

        url, options = request_of(connection)
        answer = requests.post(url, json=message.as_dict(), **options)
        if not 200 <= answer.status_code < 300:
            raise NotDelivered(f"HTTP {answer.status_code}")

    return send


def request_of(connection: Any) -> tuple[str, dict[str, Any]]:
    """The address of a Connection of type http, and the options of a request to it."""
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
    options = {"headers": headers, "auth": auth, "timeout": TIMEOUT_S, "allow_redirects": False}
    return host, options


def secrets_of(connection: Any) -> tuple[str, ...]:
    """The secrets of a Connection: an address that lets anybody post is one, too."""
    address = [part for part in re.split(r"[/?&=]", connection.host or "") if len(part) >= 8]
    extra = [
        str(value)
        for field in connection.extra_dejson.values()
        for value in (field.values() if isinstance(field, dict) else [field])
    ]
    return tuple(
        filter(
            None, (connection.password, *address, *(value for value in extra if len(value) >= 8))
        )
    )
