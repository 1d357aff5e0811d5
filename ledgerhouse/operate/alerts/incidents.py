"""Incidents over time (ops.incidents), and what is still to be told of them (ops.notices).

An incident is told once when it opens and once when it is over. What is to be told is written in
the transaction that notices it, for each channel, and marked after the delivery: whoever is killed
in between tells it again rather than never. Every notice has an id by which a receiver knows a
second one. A channel that is added later is told what is open by then; "resolved" goes only where
"opened" went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from extract.core.interval import iso, utc
from ledgerhouse.operate.alerts.conditions import KINDS, Incident
from ledgerhouse.warehouse.transaction import transaction

LINES = 20  # notices that a message spells out


@dataclass(frozen=True)
class Notice:
    """One event of an incident, to be told: `event` is opened or resolved."""

    incident_id: str
    event: str
    kind: str
    source: str
    account: str
    subject: str
    severity: str
    text: str
    opened_at: datetime
    resolved_at: datetime | None = None

    @property
    def title(self) -> str:
        """failed source: debank 0x7a3f…: what it is and whose."""
        whose = " ".join(filter(None, (self.source, self.account, self.subject)))
        return f"{self.kind.replace('_', ' ')}: {whose}"

    @property
    def todo(self) -> str:
        return KINDS[self.kind][1] if self.event == "opened" and self.kind in KINDS else ""

    def __str__(self) -> str:
        if self.event == "opened":
            return (
                f"{self.severity.upper()} {self.title}: {self.text}. Noticed at "
                f"{iso(self.opened_at)}. {self.todo}"
            ).strip()
        return (
            f"RESOLVED {self.title}. It lasted from {iso(self.opened_at)} to "
            f"{iso(self.resolved_at)}. It was: {self.text}"
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": f"{self.incident_id}:{self.event}",
            "incident_id": self.incident_id,
            "event": self.event,
            "kind": self.kind,
            "severity": self.severity,
            "source": self.source,
            "account": self.account,
            "subject": self.subject,
            "text": self.text,
            "todo": self.todo,
            "opened_at": iso(self.opened_at),
            "resolved_at": iso(self.resolved_at) if self.resolved_at else None,
        }


@dataclass(frozen=True)
class Message:
    """What one channel is sent at once: the notices, the run that noticed, and a link to it."""

    notices: tuple[Notice, ...]
    run: str
    link: str = ""

    @property
    def subject(self) -> str:
        """One line."""
        if len(self.notices) == 1:
            (one,) = self.notices
            return f"Ledgerhouse: {'resolved: ' * (one.event == 'resolved')}{one.title}"
        opened = sum(one.event == "opened" for one in self.notices)
        parts = [
            f"{count} {word}"
            for count, word in ((opened, "opened"), (len(self.notices) - opened, "resolved"))
            if count
        ]
        return f"Ledgerhouse: incidents: {', '.join(parts)}"

    @property
    def lines(self) -> list[str]:
        """LINES notices at most, and where they were noticed."""
        told = [str(one) for one in self.notices[:LINES]]
        if more := len(self.notices) - LINES:
            told += [f"and {more} more, in ops.incidents"] if more > 0 else []
        return [*told, f"Run: {self.link or self.run}"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "run": self.run,
            "link": self.link,
            "incidents": [one.as_dict() for one in self.notices],
        }


def reconcile(
    con,
    judged: Mapping[str, Sequence[Incident]],
    channels: Iterable[str],
    *,
    run_id: str,
    now: datetime,
) -> tuple[int, int]:
    """Open what is new, resolve what is gone, note what is to be told (one transaction); how many
    were opened and resolved.

    Of a kind that is not in `judged` nothing is resolved.
    """
    at = utc(now).replace(tzinfo=None)
    with transaction(con):
        lasting = {
            tuple(key): incident_id
            for incident_id, *key in con.execute(
                "SELECT incident_id, kind, source, account, subject FROM ops.incidents "
                "WHERE resolved_at IS NULL"
            ).fetchall()
        }
        seen: dict[tuple, Incident] = {}
        for one in (one for kind in judged.values() for one in kind):
            if one.key not in seen or one.certain:
                seen[one.key] = one
        opened = [one for key, one in seen.items() if one.certain and key not in lasting]
        resolved = [
            incident_id
            for key, incident_id in lasting.items()
            if key not in seen and key[0] in judged
        ]
        for one in opened:
            con.execute(
                "INSERT INTO ops.incidents (incident_id, kind, source, account, subject, "
                "severity, text, opened_at, opened_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [uuid4().hex, *one.key, KINDS[one.kind][0], one.text, at, run_id],
            )
        for key, incident_id in lasting.items():
            if key in seen and seen[key].certain:
                con.execute(
                    "UPDATE ops.incidents SET text = ? WHERE incident_id = ?",
                    [seen[key].text, incident_id],
                )
        for incident_id in resolved:
            con.execute(
                "UPDATE ops.incidents SET resolved_at = ?, resolved_by = ? WHERE incident_id = ?",
                [at, run_id, incident_id],
            )
        for channel in channels:
            con.execute(
                """
                INSERT INTO ops.notices (incident_id, event, channel, noticed_at, tries)
                SELECT incident_id, 'opened', $1, $2, 0
                FROM ops.incidents WHERE resolved_at IS NULL AND incident_id NOT IN (
                    SELECT incident_id FROM ops.notices WHERE channel = $1)""",
                [channel, at],
            )
        con.execute(
            """
            INSERT INTO ops.notices (incident_id, event, channel, noticed_at, tries)
            SELECT incident_id, 'resolved', channel, $1, 0
            FROM ops.notices JOIN ops.incidents USING (incident_id)
            WHERE resolved_at IS NOT NULL
            GROUP BY incident_id, channel HAVING count(*) = 1""",
            [at],
        )
    return len(opened), len(resolved)


def waiting(con, channel: str) -> tuple[Notice, ...]:
    """What the channel has not been told yet, oldest first."""
    rows = con.execute(
        """
        SELECT incident_id, event, kind, source, account, subject, severity, text, opened_at,
            CASE event WHEN 'resolved' THEN resolved_at END
        FROM ops.notices JOIN ops.incidents USING (incident_id)
        WHERE channel = ? AND sent_at IS NULL
        ORDER BY noticed_at, event, severity, kind, source, account, subject""",
        [channel],
    ).fetchall()
    return tuple(Notice(*row) for row in rows)


def note(con, tried: Mapping[str, Sequence[Notice]], sent: Iterable[str], now: datetime) -> None:
    """The notices were tried, by channel; those of the channels `sent` have arrived."""
    with transaction(con):
        for channel, notices in tried.items():
            for one in notices:
                con.execute(
                    "UPDATE ops.notices SET tries = tries + 1, sent_at = ? WHERE "
                    "channel = ? AND incident_id = ? AND event = ?",
                    [
                        utc(now).replace(tzinfo=None) if channel in sent else None,
                        channel,
                        one.incident_id,
                        one.event,
                    ],
                )
