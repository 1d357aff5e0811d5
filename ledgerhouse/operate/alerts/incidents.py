"""Incidents over time (ops.incidents), and the notices of them still to be sent (ops.notices).

A notice is sent once when an incident opens and once when it is over. It is written for each
channel in the transaction that notices the incident, and marked after the delivery: a task that is
killed in between sends it again rather than never. Every notice has an id by which a receiver
knows a second one. A channel that is added later is sent what is open by then; "resolved" goes
only where "opened" went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from extract.core.interval import iso, utc
from extract.core.text import visible
from ledgerhouse.operate.alerts.conditions import KINDS, Incident
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

LINES = 20  # notices that a message spells out


@dataclass(frozen=True)
class Notice:
    """One event of an incident, to be sent: `event` is opened or resolved."""

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
        """What it is and whose, such as: failed source: debank 0x7a3f…"""
        whose = " ".join(filter(None, (self.source, self.account, self.subject)))
        return visible(f"{self.kind.replace('_', ' ')}: {whose}")

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
            f"{iso(self.resolved_at) if self.resolved_at else ''}. It was: {self.text}"
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
    """All that one channel is sent by a run: the notices, the run's name, and a link to it."""

    notices: tuple[Notice, ...]
    run: str
    link: str = ""

    @property
    def subject(self) -> str:
        """One line."""
        if len(self.notices) == 1:
            (notice,) = self.notices
            return f"Ledgerhouse: {'resolved: ' * (notice.event == 'resolved')}{notice.title}"
        opened = sum(notice.event == "opened" for notice in self.notices)
        parts = [
            f"{count} {word}"
            for count, word in ((opened, "opened"), (len(self.notices) - opened, "resolved"))
            if count
        ]
        return f"Ledgerhouse: incidents: {', '.join(parts)}"

    @property
    def lines(self) -> list[str]:
        """LINES notices at most, and where they were noticed."""
        lines = [str(notice) for notice in self.notices[:LINES]]
        if (more := len(self.notices) - LINES) > 0:
            lines.append(f"and {more} more, in ops.incidents")
        return [*lines, f"Run: {self.link or self.run}"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "run": self.run,
            "link": self.link,
            "incidents": [notice.as_dict() for notice in self.notices],
        }


def reconcile(
    con: duckdb.DuckDBPyConnection,
    present: Mapping[str, Sequence[Incident]],
    channels: Iterable[str],
    *,
    run_id: str,
    now: datetime,
) -> tuple[int, int]:
    """Open what is new, resolve what is gone, write the notices (one transaction); how many were
    opened and resolved.

    Of a kind that is not in `present` nothing is resolved.
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
        for incident in chain.from_iterable(present.values()):
            if incident.key not in seen or incident.certain:
                seen[incident.key] = incident
        opened = [
            incident for key, incident in seen.items() if incident.certain and key not in lasting
        ]
        resolved = [
            incident_id
            for key, incident_id in lasting.items()
            if key not in seen and key[0] in present
        ]
        for incident in opened:
            con.execute(
                "INSERT INTO ops.incidents (incident_id, kind, source, account, subject, "
                "severity, text, opened_at, opened_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    uuid4().hex,
                    *incident.key,
                    KINDS[incident.kind][0],
                    incident.text,
                    at,
                    run_id,
                ],
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


def waiting(con: duckdb.DuckDBPyConnection, channel: str) -> tuple[Notice, ...]:
    """The notices that the channel has not taken yet, oldest first."""
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


def note_sent(
    con: duckdb.DuckDBPyConnection,
    tried: Mapping[str, Sequence[Notice]],
    sent: Iterable[str],
    now: datetime,
) -> None:
    """Note which notices were tried, by channel; those of the channels `sent` have arrived."""
    with transaction(con):
        for channel, notices in tried.items():
            for notice in notices:
                con.execute(
                    "UPDATE ops.notices SET tries = tries + 1, sent_at = ? WHERE "
                    "channel = ? AND incident_id = ? AND event = ?",
                    [
                        utc(now).replace(tzinfo=None) if channel in sent else None,
                        channel,
                        notice.incident_id,
                        notice.event,
                    ],
                )
