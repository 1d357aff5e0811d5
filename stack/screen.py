"""Progress for people: a live line in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

WIDTH = 120  # of tables, where the output is no terminal
QUIET_S = 5.0  # a plain log hears of a step this often at most


class Screen:
    """Steps with their elapsed time. `timings`: step -> seconds, in the order they ended."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, width=WIDTH)
        self.live = self.console.is_terminal
        self.began = time.monotonic()
        self.timings: dict[str, float] = {}

    def line(self, text: str = "") -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def step(self, title: str) -> Iterator[_Step]:
        """Run a step; prints what became of it and how long it took."""
        step = _Step(self, title)
        try:
            with step:
                yield step
        except BaseException:
            self.line(f"✗ {title}  {step.elapsed():.1f} s")
            raise
        self.timings[title] = round(step.elapsed(), 1)
        self.line(f"✓ {title}  {step.elapsed():.1f} s")


class _Step:
    def __init__(self, screen: Screen, title: str) -> None:
        self.screen, self.title, self.began = screen, title, time.monotonic()
        self.status = None
        self.said, self.said_at = "", float("-inf")

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def __enter__(self) -> _Step:
        if self.screen.live:
            self.status = self.screen.console.status(self.title)
            self.status.start()
        else:
            self.screen.line(f"… {self.title}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.status:
            self.status.stop()

    def note(self, text: str) -> None:
        """What the step is doing now."""
        if self.status:
            from rich.markup import escape

            self.status.update(f"{self.title}  {self.elapsed():.0f} s  [dim]{escape(text)}[/dim]")
        elif text != self.said and time.monotonic() - self.said_at > QUIET_S:
            self.said, self.said_at = text, time.monotonic()
            self.screen.line(f"    {self.elapsed():5.1f} s  {text}")
