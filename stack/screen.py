"""Progress for people: a live line in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.markup import escape
from rich.status import Status

WIDTH = 120  # of tables, where the output is no terminal
QUIET_S = 5.0  # a plain log hears of a step this often at most


class Screen:
    """Steps with their elapsed time. `timings`: step -> seconds, in the order they ended."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.live = self.console.is_terminal
        if not self.live:
            self.console.width = WIDTH
        self.began = time.monotonic()
        self.timings: dict[str, float] = {}

    def line(self, text: str = "") -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Run a step; prints what became of it and how long it took."""
        status = self.console.status(title) if self.live else None
        step = Step(self, title, status)
        if not status:
            self.line(f"… {title}")
        try:
            with status or nullcontext():
                yield step
        except BaseException:
            self.line(f"✗ {title}  {step.elapsed():.1f} s")
            raise
        self.timings[title] = round(step.elapsed(), 1)
        self.line(f"✓ {title}  {step.elapsed():.1f} s")


class Step:
    """A step under way, and the last note about it."""

    def __init__(self, screen: Screen, title: str, status: Status | None) -> None:
        self.screen, self.title, self.status = screen, title, status
        self.began, self.noted, self.noted_at = time.monotonic(), "", float("-inf")

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def note(self, text: str) -> None:
        """What the step is doing now."""
        if self.status:
            self.status.update(f"{self.title}  {self.elapsed():.0f} s  [dim]{escape(text)}[/dim]")
        elif text != self.noted and time.monotonic() - self.noted_at > QUIET_S:
            self.noted, self.noted_at = text, time.monotonic()
            self.screen.line(f"    {self.elapsed():5.1f} s  {text}")
