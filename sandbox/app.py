"""The application: every vendor, the controls and the truth on one port."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from sandbox.control import Control
from sandbox.faults.faults import Faults
from sandbox.faults.traffic import Traffic
from sandbox.world.moments import Clock, Moment
from sandbox.world.world import World


def create_app(
    world: World,
    now: Moment | Clock,
    *,
    faults: str = "none",
    faults_seed: int | None = None,
    hold: float = 35.0,
    pause: float = 1.0,
    **options: Any,
) -> Traffic:
    """The ASGI application; `.world`, `.clock`, `.apis`, `.fail(…)`, `.faults`, `.stats()` for tests.

    `faults`: profiles as `faults` documents them, drawn from `faults_seed` (None: the world's);
    `hold`: seconds that `timeouts` keep an answer back, more than clients wait; `pause`: seconds
    between two bytes of a `drip`. `options` are those of the vendors' APIs, by the names in their
    `api_options`.
    """
    clock = now if isinstance(now, Clock) else Clock(now)
    apis = {
        name: vendor.api(
            world, clock, **{o: options.pop(o) for o in vendor.api_options if o in options}
        )
        for name, vendor in world.vendors.items()
    }
    if options:
        raise TypeError(f"no vendor's API has the options {', '.join(options)}")
    control = Control(world, clock, apis)
    routes = [*(route for api in apis.values() for route in api.routes()), *control.routes()]
    seed = world.seed if faults_seed is None else faults_seed
    faulty = Faults(seed, faults, hold, pause, vendors=world.vendors)
    traffic = Traffic(FastAPI(routes=routes, openapi_url=None), world, clock, faulty, apis)
    control.traffic = traffic
    return traffic
