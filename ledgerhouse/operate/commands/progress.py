"""How far a long command is: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.status import Status

QUIET_S = 5.0  # a log gets a line this often at most
WIDTH = 120  # of what is printed, where the output is no terminal


class Progress:
    """`show` says how many of `total` are done; `total` may change meanwhile."""

    def __init__(self, title: str, total: int):
        self.title, self.total = title, total
        self._bar: Any = None
        self._task: Any = None
        self._shown, self._shown_at = "", float("-inf")

    def __enter__(self) -> Progress:
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True, highlight=False)
        if console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                progress.TextColumn("{task.fields[now]}", style="dim", markup=False),
                console=console,
            )
            self._task = self._bar.add_task(self.title, total=self.total, now="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, done: int, failed: int, now: str) -> None:
        """`done` succeeded, `failed` did not; `now` is what it is doing."""
        trouble = f"{failed} failed  " if failed else ""
        if self._bar:
            self._bar.update(
                self._task, completed=done + failed, total=self.total, now=trouble + now
            )
            return
        line = f"{done + failed} of {self.total}  {trouble}{now}"
        if line != self._shown and time.monotonic() - self._shown_at > QUIET_S:
            self._shown, self._shown_at = line, time.monotonic()
            print(f"  {self.title}: {line}", file=sys.stderr, flush=True)


class Steps:
    """Steps with their elapsed time: a live line in a terminal, plain lines in a log.

    `timings`: step → seconds, in the order they ended. With `stderr` what goes to standard output
    is left to the command's answer.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        from rich.console import Console

        self.console = Console(stderr=stderr, highlight=False)
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

    def __init__(self, steps: Steps, title: str, status: Status | None) -> None:
        self.steps, self.title, self.status = steps, title, status
        self.began, self.noted, self.noted_at = time.monotonic(), "", float("-inf")

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def note(self, text: str, *_: object) -> None:
        """What the step is doing now."""
        from rich.markup import escape

        if self.status:
            self.status.update(f"{self.title}  {self.elapsed():.0f} s  [dim]{escape(text)}[/dim]")
        elif text != self.noted and time.monotonic() - self.noted_at > QUIET_S:
            self.noted, self.noted_at = text, time.monotonic()
            self.steps.line(f"    {self.elapsed():5.1f} s  {text}")
