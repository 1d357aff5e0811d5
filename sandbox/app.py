"""The application: both vendors, the controls and the truth on one port."""

from __future__ import annotations

from fastapi import FastAPI

from sandbox.coinbase.api import CoinbaseApi
from sandbox.control import Control
from sandbox.debank.api import START_BALANCE, DebankApi
from sandbox.faults.faults import Faults
from sandbox.faults.traffic import Traffic
from sandbox.world.moments import Clock, Moment
from sandbox.world.world import World


def create_app(
    world: World,
    now: Moment | Clock,
    *,
    inclusive: bool | None = None,
    prices: dict[str, int] | None = None,
    units: int = START_BALANCE,
    faults: str = "none",
    faults_seed: int | None = None,
    hold: float = 35.0,
    pause: float = 1.0,
) -> Traffic:
    """The ASGI application; `.world`, `.clock`, `.coinbase`, `.debank`, `.fail(…)`, `.faults`, `.stats()` for tests.

    `inclusive`: whether DeBank's start_time includes its own second; None takes the seed's
    parity (odd seeds include it). `prices`: units per call, merged over debank_api.PRICES.
    `faults`: profiles as `faults` documents them, drawn from `faults_seed` (None: the world's);
    `hold`: seconds that `timeouts` keep an answer back, more than clients wait; `pause`: seconds
    between two bytes of a `drip`.
    """
    clock = now if isinstance(now, Clock) else Clock(now)
    debank = DebankApi(
        world, clock, world.seed % 2 == 1 if inclusive is None else inclusive, prices, units
    )
    control = Control(world, clock, debank)
    coinbase = CoinbaseApi(world, clock)
    routes = [*coinbase.routes(), *debank.routes(), *control.routes()]
    traffic = Traffic(
        FastAPI(routes=routes, openapi_url=None),
        world,
        clock,
        Faults(world.seed if faults_seed is None else faults_seed, faults, hold, pause),
    )
    control.traffic = traffic
    traffic.coinbase, traffic.debank = coinbase, debank
    return traffic
