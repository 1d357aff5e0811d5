"""Ctrl-C, SIGTERM and a closed terminal as one exception, raised once, never during clean-up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked the stack to stop; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class OneStop:
    """While entered: the first signal raises Stopped in the main thread, later ones call `hurry`.

    `close()` begins the clean-up: from then on no signal raises.
    """

    def __init__(self, hurry: Callable[[], None]) -> None:
        self.closing, self.hurry = False, hurry
        self.before: dict[int, object] = {}

    def __enter__(self) -> OneStop:
        if threading.current_thread() is threading.main_thread():
            for number in CAUGHT:
                self.before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def close(self) -> None:
        self.closing = True

    def _caught(self, number: int, _frame: object) -> None:
        if self.closing:
            self.hurry()
            return
        self.closing = True
        raise Stopped(number)
