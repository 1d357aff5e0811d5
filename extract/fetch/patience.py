"""Patience with a host that does not answer: how long one task goes on asking it.

Six tries of a call that each wait for the deadline would be six minutes, and a task makes many
calls. So all tries of all calls of a client share one limit.
"""

from __future__ import annotations

from threading import Lock

from extract.core.errors import DeadlineExceeded, ExtractError, Fatal, RateLimited, Retriable

PATIENCE_S = 120.0  # two deadlines: what was slow once is asked again


class Patience:
    """Since when a host has answered nothing, as seen by the calls of one client.

    Used by several threads at once. Times are those of time.monotonic.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._since: float | None = None
        self._given_up: Retriable | None = None

    def answered(self) -> None:
        """The host has answered something, in time."""
        with self._lock:
            self._since = self._given_up = None

    def failed(self, error: ExtractError, started: float, now: float) -> bool:
        """Note a try that `started` then and ended now; whether the host is given up."""
        if isinstance(error, RateLimited) or (
            error.status is not None and not isinstance(error, DeadlineExceeded)
        ):
            self.answered()
            return False
        if isinstance(error, Fatal):  # of our own making: it says nothing of the host
            return False
        with self._lock:
            self._since = started if self._since is None else min(self._since, started)
            if now - self._since < PATIENCE_S:
                return False
            kind = DeadlineExceeded if isinstance(error, DeadlineExceeded) else Retriable
            self._given_up = kind(
                f"the host has answered nothing for {now - self._since:.0f} s, so this task asks it "
                "no more",
                sent=False,
            )
            return True

    def require(self) -> None:
        """Raise what the host was given up for, if it was: a DeadlineExceeded or a Retriable."""
        with self._lock:
            if (gone := self._given_up) is not None:
                raise type(gone)(*gone.args, sent=False)
