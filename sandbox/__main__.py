"""The command that serves the sandbox: python -m sandbox --port 8099 --seed 7 --now 2026-01-31T06:00:00Z"""

from __future__ import annotations

import argparse
import json
import os

from sandbox.app import create_app
from sandbox.faults.faults import PROFILES, parse
from sandbox.server import run
from sandbox.vendors import all_vendors
from sandbox.world.moments import DAY, Clock, seconds
from sandbox.world.world import GENESIS, World


def main() -> None:
    vendors = all_vendors()
    parser = argparse.ArgumentParser(
        "python -m sandbox", description=f"Stands in for {', '.join(vendors)}."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument(
        "--seed", type=int, default=7, help="any integer; the same seed, the same history"
    )
    parser.add_argument("--now", required=True, help="the sandbox's clock, ISO 8601")
    parser.add_argument("--start", default=GENESIS, help="when books of it begin, ISO 8601")
    parser.add_argument(
        "--mess",
        choices=("yes", "no"),
        default=os.environ.get("SANDBOX_MESS") or "yes",
        help="whether balances and rows are as odd as in life (default: SANDBOX_MESS, or yes)",
    )
    parser.add_argument(
        "--older-days",
        type=int,
        help="days of history before --start (default: 60 with --mess yes, else 0)",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="1 is about 10,000 transactions in two years"
    )
    parser.add_argument(
        "--tick", action="store_true", help="let the clock run; otherwise it stands still"
    )
    parser.add_argument(
        "--late-days",
        type=int,
        default=0,
        help="some on-chain transactions appear that many days late",
    )
    parser.add_argument(
        "--faults",
        default="none",
        metavar="NAME[:RATE],…",
        help=f"what goes wrong, of: {', '.join(PROFILES)}",
    )
    parser.add_argument("--faults-seed", type=int, help="another seed for the faults than --seed")
    parser.add_argument(
        "--hold", type=float, default=35.0, help="seconds that timeouts keep an answer back"
    )
    parser.add_argument(
        "--pause", type=float, default=1.0, help="seconds between two bytes of a drip"
    )
    parser.add_argument(
        "--no-limits", action="store_true", help="no rate limits: for clients that do not wait"
    )
    for vendor in vendors.values():
        vendor.flags(parser)
    args = parser.parse_args()
    try:
        parse(args.faults)
    except ValueError as error:
        parser.error(str(error))
    mess = args.mess == "yes"
    older = args.older_days if args.older_days is not None else 60 * mess
    first = seconds(args.start) - older * DAY
    given = vars(args)
    lived = {o: given[o] for v in vendors.values() for o in v.history_options if o in given}
    world = World(args.seed, first, args.scale, args.late_days, mess, args.start, **lived)
    clock = Clock(args.now, args.tick)
    print(
        f"sandbox http://{args.host}:{args.port} {json.dumps(world.summary(clock.now()))}",
        flush=True,
    )
    app = create_app(
        world,
        clock,
        faults=args.faults,
        faults_seed=args.faults_seed,
        hold=args.hold,
        pause=args.pause,
        **{o: given[o] for v in vendors.values() for o in v.api_options if o in given},
    )
    if args.no_limits:
        app.lift_limits()
    run(app, args.host, args.port)


if __name__ == "__main__":
    main()
