"""By which way alerts go: the providers' own notifiers, against servers of this machine."""

from __future__ import annotations

import json
import logging
import socket
from email import message_from_bytes

import duckdb
import pytest

from extract.core import sealed
from ledgerhouse.config import Rules
from ledgerhouse.operate.airflow.operators import alert as alert_operators
from ledgerhouse.operate.alerts import channels, incidents
from ledgerhouse.operate.alerts.channels import NotDelivered
from tests.ledgerhouse.operate.alerts.scene import HOOK, NOW, TOKEN, connection


@pytest.fixture
def mail():
    """A mail server with a user; `box` keeps the messages, `refuses` makes it turn all away."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    class Box:
        refuses = False

        def __init__(self):
            self.box = []

        async def handle_DATA(self, server, session, envelope):
            if self.refuses:
                return f"554 not today, {PASSWORD}"
            self.box.append(
                (envelope.mail_from, envelope.rcpt_tos, message_from_bytes(envelope.content))
            )
            return "250 OK"

    def login(server, session, envelope, mechanism, data):
        return AuthResult(success=data.password == PASSWORD.encode())

    box = Box()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        box.port = probe.getsockname()[1]
    controller = Controller(
        box, hostname="127.0.0.1", port=box.port, authenticator=login, auth_require_tls=False
    )
    controller.start()
    yield box
    controller.stop()


PASSWORD = "mail-pass-77"


def test_a_webhook_is_posted_json_once_an_incident_and_again_when_it_is_over(alert, webhook):
    for wrong in (True, True, False, False):
        alert(wrong)
    opened, resolved = webhook.took()
    path, headers, *_ = webhook.asked[0]
    assert (path, headers["Authorization"], headers["X-Team"]) == (HOOK, f"Bearer {TOKEN}", "books")
    assert opened["subject"] == "Ledgerhouse: stale coverage: debank 0xa 0"
    (opening,), (closing,) = opened["incidents"], resolved["incidents"]
    assert (
        opening["event"] == "opened" and opening["todo"] and opening["text"].endswith("<!channel>")
    )
    assert (closing["event"], closing["incident_id"]) == ("resolved", opening["incident_id"])
    assert closing["id"] != opening["id"] and closing["resolved_at"] >= opening["opened_at"]


@pytest.mark.parametrize("fault", [500, 302, 0])
def test_what_a_webhook_did_not_take_is_sent_by_the_next_run_and_then_no_more(
    alert, webhook, fault, logged
):
    webhook.answers += [fault, fault]
    for number in (1, 2):
        with pytest.raises(NotDelivered, match="alerts_webhook did not take"):
            alert(number=number)
    assert webhook.took() == []
    alert(), alert()
    assert [i["event"] for body in webhook.took() for i in body["incidents"]] == ["opened"]
    assert len(webhook.asked) == 3
    assert "CRITICAL" not in logged() and logged().count("WARNING stale coverage") == 1
    assert TOKEN not in logged() and HOOK not in logged() and "another" not in logged()


def test_who_is_down_costs_no_other_and_a_slow_one_is_given_up(
    alert, webhook, mail, monkeypatch, logged
):
    monkeypatch.setattr(channels, "TIMEOUT_S", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        connection(
            monkeypatch,
            "alerts_slack",
            conn_type="slackwebhook",
            password=TOKEN,
            host=f"http://127.0.0.1:{silent.getsockname()[1]}/services",
        ),
    ):
        with pytest.raises(NotDelivered, match="^alerts_slack did not take"):
            alert()
    assert len(webhook.took()) == 1
    assert "alerts_slack did not take 1 alert(s)" in logged() and "T0001" not in logged()


def test_slack_is_notified_by_its_providers_notifier(alert, web, monkeypatch, logged):
    with connection(
        monkeypatch,
        "alerts_slack",
        conn_type="slackwebhook",
        password=TOKEN,
        host=web.url + "/services",
    ):
        web.answers.append(403)
        with pytest.raises(NotDelivered):
            alert()
        alert(), alert(False)
    opened, resolved = web.took()
    assert web.asked[0][0] == f"/services/{TOKEN}"
    assert opened["text"].startswith("*Ledgerhouse: stale coverage: debank 0xa 0*\nWARNING stale")
    assert "said &lt;b&gt;&amp;&lt;/b&gt; {{ 7 * 7 }} &lt;!channel&gt;" in opened["text"], (
        "nobody is woken, and no template is rendered"
    )
    assert "RESOLVED stale coverage" in resolved["text"]
    assert "T0001" not in logged() and "very-secret" not in logged()


def test_mail_goes_by_its_providers_notifier_and_connection(alert, mail, monkeypatch, logged):
    smtp = dict(
        conn_type="smtp",
        host="127.0.0.1",
        port=mail.port,
        login="me",
        password=PASSWORD,
        extra={
            "disable_ssl": True,
            "disable_tls": True,
            "from_email": "books@x.example",
            "retry_limit": 0,
            "timeout": 5,
        },
    )
    to = '[alerts]\nemail_to = ["one@x.example", "two@x.example"]\n'
    with connection(monkeypatch, "alerts_smtp", **smtp):
        alert()
        assert "no email_to in [alerts]" in logged() and mail.box == []
        mail.refuses = True
        with pytest.raises(NotDelivered, match="alerts_smtp"):
            alert(rules=to)
        mail.refuses = False
        alert(rules=to), alert(rules=to), alert(False, rules=to)
    (sender, receivers, opened), (*_, resolved) = mail.box
    assert (sender, receivers) == ("books@x.example", ["one@x.example", "two@x.example"])
    assert opened["Subject"] == "Ledgerhouse: stale coverage: debank 0xa 0"
    assert resolved["Subject"] == "Ledgerhouse: resolved: stale coverage: debank 0xa 0"
    body = "".join(
        part.get_payload(decode=True).decode() for part in opened.walk() if not part.is_multipart()
    )
    assert "said &lt;b&gt;&amp;&lt;/b&gt; {{ 7 * 7 }} &lt;!channel&gt;" in body
    assert PASSWORD not in logged() and "***" in logged()


def test_no_name_of_a_strangers_adds_a_header_to_the_mail(mail, monkeypatch):
    """A token's symbol, an account or a file may hold line ends."""
    evil = "x\r\nBcc: thief@x.example\r\n\r\nPay here\u2028\x1b[2J"
    notice = incidents.Notice(
        "1", "opened", "balance_off", "debank", evil, evil, "warning", evil, NOW
    )
    host = {"host": "127.0.0.1", "port": mail.port, "login": "me", "password": PASSWORD}
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "b@x.example", "timeout": 5}
    with connection(monkeypatch, "alerts_smtp", conn_type="smtp", extra=extra, **host):
        senders = channels.channels(Rules(email_to=("one@x.example",)), logging.getLogger())
        message = channels.message_of((notice,), "sync", "r1")
        assert channels.send_message(senders, logging.getLogger(), "alerts_smtp", message)
    ((_, receivers, sent),) = mail.box
    assert receivers == ["one@x.example"] and sent["Bcc"] is None
    assert not set("\r\n\x1b\u2028") & set(message.subject)
    assert message.subject.startswith("Ledgerhouse: balance off: debank x")


def test_many_at_once_are_one_message_which_a_chat_can_hold(alert, webhook, web, monkeypatch):
    with connection(
        monkeypatch, "alerts_slack", conn_type="slackwebhook", password=TOKEN, host=web.url
    ):
        alert(300)
    bodies = web.took()
    slack = next(body["text"] for body in bodies if "text" in body)
    message = next(body for body in bodies if "incidents" in body)
    assert len(message["incidents"]) == 300
    assert message["subject"] == "Ledgerhouse: incidents: 300 opened"
    assert slack.count("WARNING") == incidents.LINES and "and 280 more, in ops.incidents" in slack
    assert len(slack) < 40_000, "Slack cuts longer ones"


def test_a_connection_that_makes_no_sense_costs_no_other(alert, webhook, monkeypatch, logged):
    for name in ("alerts_slack", "alerts_smtp"):
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{name.upper()}",
            json.dumps({"conn_type": "generic", "host": "http://[no", "extra": {"headers": 7}}),
        )
    with pytest.raises(NotDelivered, match="^alerts_slack did not take"):
        alert()
    assert len(webhook.took()) == 1 and "alerts_slack did not take" in logged()


def test_the_message_leads_to_the_run_where_airflow_has_an_address(alert, webhook, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://flow.example/a/")
    alert()
    assert webhook.took()[0]["link"] == "https://flow.example/a/dags/sync/runs/manual__1"


def test_a_killed_task_has_sent_or_sends_at_the_next_try(alert, webhook, monkeypatch):
    """Killed before the delivery, and between it and its mark: the second is sent again, by the
    same id."""

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    for name, target in (("send_message", alert_operators), ("note_sent", incidents)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(target, name, die)
            alert()
    alert(), alert()
    ids = [i["id"] for body in webhook.took() for i in body["incidents"]]
    assert len(ids) == 2 and len(set(ids)) == 1


def test_that_alerts_do_not_work_is_sent_once_and_when_it_is_over(alert, webhook, tmp_path, logged):
    alert(False)
    good = (tmp_path / "warehouse.duckdb").read_bytes()
    (tmp_path / "warehouse.duckdb").write_bytes(b"x" * len(good))
    for number in (1, 2, 3, 3):
        with pytest.raises(duckdb.Error):
            alert(number=number)
    (tmp_path / "warehouse.duckdb").write_bytes(good)
    alert(False), alert(False)
    sent = [(i["kind"], i["event"]) for body in webhook.took() for i in body["incidents"]]
    assert sent == [("alerts_broken", "opened"), ("alerts_broken", "resolved")]
    assert not (tmp_path / alert_operators.BROKEN).exists()


@pytest.mark.parametrize("still_broken", [True, False])
def test_the_file_that_0_1_0_wrote_is_gone_on_with(alert, webhook, tmp_path, still_broken):
    """Its key was "told": who is named there gets no second message, and the one of the end."""
    alert(False)
    file, warehouse = tmp_path / alert_operators.BROKEN, tmp_path / "warehouse.duckdb"
    old = {"id": "7", "since": NOW.isoformat(), "text": "cannot be looked up"}
    file.write_text(json.dumps(old | {"told": ["alerts_webhook"]}))
    if still_broken:
        good = warehouse.read_bytes()
        warehouse.write_bytes(b"x" * len(good))
        with pytest.raises(duckdb.Error):
            alert(number=3)
        assert sealed.read(file) == old | {"sent_to": ["alerts_webhook", "log"]}
        warehouse.write_bytes(good)
    assert webhook.took() == []
    alert(False), alert(False)
    (body,) = webhook.took()
    (notice,) = body["incidents"]
    assert (notice["incident_id"], notice["event"]) == ("7", "resolved")
    assert not file.exists()
