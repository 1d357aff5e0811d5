"""Servers of the application: `serve` in a thread for tests, `run` in the foreground."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from sandbox.app import create_app
from sandbox.faults.traffic import Traffic
from sandbox.vendors import all_vendors
from sandbox.world.moments import Clock, Moment
from sandbox.world.world import GENESIS, World


class Served(str):
    """The base url, http://127.0.0.1:PORT, with the running parts as attributes."""

    app: Traffic
    world: World
    clock: Clock

    def __getattr__(self, name: str) -> str:
        """The url of a vendor: `url.coinbase` is http://127.0.0.1:PORT/coinbase."""
        world = vars(self).get("world")
        if world is not None and name in world.vendors:
            return f"{self}/{name}"
        raise AttributeError(f"the sandbox serves no vendor {name!r}")


def _not_a_cut(record: logging.LogRecord) -> bool:
    """A response left incomplete is the fault `cut`, not trouble of the sandbox."""
    return "without completing response" not in record.getMessage()


def _server(app: Traffic, **where) -> uvicorn.Server:
    # The Date header is the sandbox's, so uvicorn must not add its own.
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            date_header=False,
            server_header=False,
            timeout_keep_alive=75,
            **where,
        )
    )
    logging.getLogger("uvicorn.error").addFilter(_not_a_cut)
    return server


@contextmanager
def serve(
    world: World | None = None,
    now: Moment | Clock = "2025-01-01T00:00:00Z",
    *,
    seed: int = 7,
    start: Moment = GENESIS,
    scale: float = 1.0,
    late_days: int = 0,
    tick: bool = False,
    mess: bool = False,
    books_start: Moment | None = None,
    **options,
) -> Iterator[Served]:
    """A running sandbox on a free port; `options` are create_app's and the vendors'. Ends with
    the block.

    Its world is tidy unless `mess` is asked for: most laws of the product's are about one.
    """
    histories = [option for vendor in all_vendors().values() for option in vendor.history_options]
    lived = {name: options.pop(name) for name in histories if name in options}
    world = world or World(seed, start, scale, late_days, mess, books_start, **lived)
    clock = now if isinstance(now, Clock) else Clock(now, tick)
    app = create_app(world, clock, **options)
    listener = socket.create_server(("127.0.0.1", 0))
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the sandbox did not start; its thread has ended")
        time.sleep(0.005)
    url = Served(f"http://127.0.0.1:{listener.getsockname()[1]}")
    url.app, url.world, url.clock = app, world, clock
    try:
        yield url
    finally:
        server.should_exit = server.force_exit = True
        thread.join(5)
        listener.close()


def run(app: Traffic, host: str, port: int) -> None:
    _server(app, host=host, port=port).run()
