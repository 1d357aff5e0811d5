"""How far a long command is: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

QUIET_S = 5.0  # a log gets a line this often at most


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
    """A command's steps on stderr: a spinner in a terminal, a line each at their end."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[..., None]]:
        """Run a step; what is yielded shows what it is doing now."""
        began = time.monotonic()
        sign = "✗"
        with self.console.status(title) as status:
            try:
                yield lambda text, *_: status.update(f"{title}: {text}")
                sign = "✓"
            finally:
                status.stop()
                self.console.print(
                    f"{sign} {title}  {time.monotonic() - began:.1f} s", markup=False
                )
