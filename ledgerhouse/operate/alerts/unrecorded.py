"""Alerts that are sent without the warehouse: a file holds the incident, and who was sent it.

For what must be said while the warehouse cannot be opened (alerts themselves fail, a run that
hangs holds it). The file is there while the incident lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from extract.core import durable, sealed
from extract.core.quarantine import quarantine
from ledgerhouse.operate.alerts.incidents import Notice

Deliver = Callable[[str, Notice], bool]  # a channel and a notice: whether it has arrived


def read(file: Path) -> dict[str, Any] | None:
    """The incident that a file holds; None where there is none. One that cannot be read goes to
    quarantine: at worst a notice is sent twice."""
    if not file.exists():
        return None
    try:
        known = sealed.read(file)
        known["sent_to"] = list(known.pop("told", known.get("sent_to", [])))  # the key of 0.1.0
        datetime.fromisoformat(known["since"])
        if lacking := {"id", "text"} - known.keys():
            raise sealed.Damaged(f"it has no {', '.join(sorted(lacking))}")
        return known
    except (ValueError, KeyError, TypeError) as error:
        quarantine(file.parent, file, f"it is no incident: {error}")
        return None


def open_incident(
    file: Path,
    channels: Iterable[str],
    deliver: Deliver,
    *,
    kind: str,
    text: str,
    now: datetime,
    severity: str = "critical",
    subject: str = "",
) -> list[str]:
    """Send each channel once that the incident has begun; the channels that did not take it.

    An incident of another `subject` than the one in the file is another incident.
    """
    known = read(file)
    if known is None or known.get("subject", "") != subject:
        known = {
            "id": uuid4().hex,
            "since": now.isoformat(),
            "sent_to": [],
            "text": text,
            "kind": kind,
            "severity": severity,
            "subject": subject,
        }
    return _send(file, known, channels, deliver)


def send_again(file: Path, channels: Iterable[str], deliver: Deliver) -> list[str]:
    """Send an open incident to the channels that have not taken it; those that still did not."""
    known = read(file)
    return _send(file, known, channels, deliver) if known else []


def resolve(file: Path, channels: Iterable[str], deliver: Deliver, now: datetime) -> list[str]:
    """Send that it is over to the channels that were sent that it began; the file goes when all have it."""
    known, here = read(file), list(channels)
    if known is None:
        file.unlink(missing_ok=True)
        return []
    notice = _notice(known, "resolved", now)
    known["sent_to"] = [
        name for name in known["sent_to"] if name in here and not deliver(name, notice)
    ]
    if known["sent_to"]:
        durable.write(file, sealed.seal(known))
    else:
        file.unlink(missing_ok=True)
    return known["sent_to"]


def _send(
    file: Path, known: dict[str, Any], channels: Iterable[str], deliver: Deliver
) -> list[str]:
    late = []
    for name in channels:
        if name not in known["sent_to"]:
            (known["sent_to"] if deliver(name, _notice(known, "opened")) else late).append(name)
    durable.write(file, sealed.seal(known))
    return late


def _notice(known: dict[str, Any], event: str, now: datetime | None = None) -> Notice:
    return Notice(
        known["id"],
        event,
        known.get("kind", "alerts_broken"),
        "",
        "",
        known.get("subject", ""),
        known.get("severity", "critical"),
        known["text"],
        datetime.fromisoformat(known["since"]),
        now,
    )
