"""Three wallets on six chains, day after day, from a seed.

Every day has its own random stream, so a later `now` extends the same history. Ordinary days
are drawn; the cases that break pipelines come on fixed days of a 120-day cycle, whatever the
seed and the scale.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random

from sandbox.world import chain_kinds as kinds
from sandbox.world import chain_mess
from sandbox.world.chain_mess import Deposit, Drift
from sandbox.world.chain_records import Tx
from sandbox.world.mess_tokens import ALL_CHAINS
from sandbox.world.moments import DAY
from sandbox.world.purse import Purse
from sandbox.world.tokens import CHAINS, MEME_0, MEME_9, MEME_18, NATIVE, ONCE, TWINS, USDC, WALLETS

SLOTS_A_DAY = 6.3  # about 7,000 transactions in two years
CYCLE = 120
HOUR = 3600
_KINDS = (
    kinds.receive,
    kinds.send,
    kinds.swap,
    kinds.approve,
    kinds.call,
    kinds.fail,
    kinds.scam,
    kinds.own,
)
_WEIGHTS = (22, 15, 24, 10, 10, 4, 11, 4)


class ChainHistory:
    """`wallets[address]` and `chains[address, chain]`: transactions by (time, id), oldest first."""

    def __init__(
        self, seed: int, start: int, scale: float, late_days: int, mess: bool = False
    ) -> None:
        self.seed, self.start, self.scale, self.late_days = seed, start, scale, late_days
        self.mess = mess
        self.drifts: dict[str, list[Drift]] = {w: [] for w in WALLETS}
        self.deposits: dict[str, list[Deposit]] = {w: [] for w in WALLETS}
        self.days = 0
        self.purse = Purse()
        self.wallets: dict[str, list[Tx]] = {w: [] for w in WALLETS}
        self.chains: dict[tuple[str, str], list[Tx]] = {
            (w, c): [] for w in WALLETS for c in ALL_CHAINS
        }

    def grow(self, until: int) -> None:
        """Live every day that begins at or before `until`."""
        while self.start + self.days * DAY <= until:
            self._live_one_day()

    def _live_one_day(self) -> None:
        day, self.days = self.days, self.days + 1
        midnight = self.start + day * DAY
        self.rng = rng = Random(f"ledgerhouse/{self.seed}/chain/{day}")
        self._today: dict[str, list[Tx]] = defaultdict(list)
        slots = [
            (midnight + at, order, doing) for order, (at, *doing) in enumerate(self._specials(day))
        ]
        if self.mess:
            messy = enumerate(chain_mess.slots(day), len(slots))
            slots += [(midnight + at, order, doing) for order, (at, *doing) in messy]
        rate = SLOTS_A_DAY * self.scale
        for _ in range(int(rate) + (rng.random() < rate % 1)):
            at, wallet = midnight + rng.randrange(DAY), rng.choices(WALLETS, (45, 35, 20))[0]
            chain = rng.choice(list(CHAINS))
            # A block holds several of a wallet's transactions: ties in one second, mostly one chain.
            for _ in range(1 if rng.random() < 0.88 else rng.randrange(2, 5)):
                slots.append((at, len(slots), [rng.choices(_KINDS, _WEIGHTS)[0], wallet, chain]))
                if rng.random() < 0.2:
                    chain = rng.choice(list(CHAINS))
        for at, _, (kind, wallet, chain, *how) in sorted(slots, key=lambda slot: slot[:2]):
            kind(self, at, wallet, chain, **(how[0] if how else {}))
        for wallet, seen in self._today.items():
            seen.sort(key=lambda tx: (tx.time, tx.id, tx.idx or 0))
            self.wallets[wallet].extend(seen)
            for tx in seen:
                self.chains[wallet, tx.chain].append(tx)

    def _specials(self, day: int):
        """(second of the day, kind, wallet, chain, arguments) of the cycle's fixed days."""
        a, b, c = WALLETS
        k, soon = kinds, {"delay": 20}
        late = {"delay": self.late_days * DAY or None}
        cycle = day % CYCLE
        if cycle == 0:
            for at, wallet in enumerate(WALLETS):
                for chain in CHAINS:
                    yield (
                        5 + at,
                        k.receive,
                        wallet,
                        chain,
                        {"token": NATIVE[chain], "units": 3 * NATIVE[chain].typical, **soon},
                    )
                    yield 60 + at, k.receive, wallet, chain, {"token": USDC[chain], **soon}
        elif cycle == 1:
            yield (
                7 * HOUR,
                k.receive,
                a,
                "eth",
                {"token": USDC["eth"], "units": 16_180_000_000, "noise": True},
            )
            yield 8 * HOUR, k.receive, b, "bsc", {"token": MEME_9}
            yield 9 * HOUR, k.receive, a, "eth", {"token": MEME_0}
            yield 10 * HOUR, k.receive, c, "arb", {"token": MEME_18}
            yield 11 * HOUR, k.receive, b, "eth", {"token": TWINS[0]}
            yield 12 * HOUR, k.receive, b, "bsc", {"token": TWINS[1]}
            yield 13 * HOUR, k.receive, a, "op", {"token": ONCE, **soon}
        elif cycle == 2:
            yield 7 * HOUR, k.send_all, a, "op"
            for at, wallet in enumerate(WALLETS):
                yield 8 * HOUR + at * 600, k.fail, wallet, "eth", {"shows_leg": wallet != b}
                yield 9 * HOUR + at * 600, k.scam, wallet, "bsc", {"poison": False}
                yield 10 * HOUR + at * 600, k.scam, wallet, "eth", {"poison": True}
                yield 11 * HOUR + at * 600, k.own, wallet, "arb"
                yield 12 * HOUR + at * 600, k.swap, wallet, "avax", {"twins": True}
        elif cycle == 3:
            # 24 in one second, four on each chain: a page of 20 over all chains cannot leave it.
            for kind in (k.approve, k.receive, k.call, k.approve):
                for chain in CHAINS:
                    yield 15 * HOUR, kind, WALLETS[day // CYCLE % 3], chain
        elif cycle == 4:
            # 3 x 11 in single seconds of one chain: wherever a page of 20 ends here, it cuts one.
            for step in range(3):
                for kind in [k.approve, k.receive, k.call] * 3 + [k.receive] * 2:
                    yield 16 * HOUR + 3 * step, kind, WALLETS[(day // CYCLE + 1) % 3], "eth"
        elif cycle == 5:
            for at, wallet in enumerate(WALLETS):
                yield 6 * HOUR + at, k.receive, wallet, "matic", {"delay": 9 * HOUR + 1700}
                yield 7 * HOUR + at, k.send, wallet, "avax", {"delay": 10 * HOUR}
                yield 8 * HOUR + at, k.receive, wallet, "op", {"change": "cate"}
                yield 9 * HOUR + at, k.swap, wallet, "op", {"change": "leg"}
        elif day % 30 in (10, 11, 12):
            wallet = WALLETS[day % 30 - 10]
            yield 5 * HOUR, k.receive, wallet, "op", late
            yield 5 * HOUR + 40, k.send, wallet, "eth", late

    def add(self, tx: Tx, delay: int | None = None, change: str | None = None) -> None:
        """Index it: when the vendor shows it, in which first version, and what it then moves.

        `change`: what the first version lacks, "cate" or "leg"; None draws, mostly nothing.
        """
        rng = self.rng
        tx.visible_at = tx.changes_at = tx.time + (delay or self._delay())
        tx.early_cate = tx.cate
        hidden = None
        if change is None and delay is None and tx.legs and not tx.is_scam and rng.random() < 0.04:
            change = "cate" if tx.cate and rng.random() < 0.5 else "leg"
        if change:
            tx.changes_at = tx.visible_at + rng.randrange(HOUR, 12 * HOUR)
            if change == "cate":
                tx.early_cate = None
            else:
                hidden = tx.legs[-1]
        for leg in tx.legs:
            leg.visible_at = tx.changes_at if leg is hidden else tx.visible_at
            if leg.direction == "in" and tx.is_settled and not tx.is_scam:
                self.purse.put(tx.wallet, leg.token, leg.units, leg.visible_at)
        tx.time_wire = f"{tx.time}.0" if rng.random() < 0.4 else str(tx.time)
        if self.mess:
            chain_mess.l1_fee(self, tx)
        self._today[tx.wallet].append(tx)

    def _delay(self) -> int:
        """Seconds until the vendor has indexed it: mostly seconds, rarely hours."""
        dice = self.rng.random()
        if dice < 0.86:
            return self.rng.randrange(2, 60)
        if dice < 0.97:
            return self.rng.randrange(60, 900)
        return self.rng.randrange(900, 10 * HOUR)

    def address(self) -> str:
        return f"0x{self.rng.getrandbits(160):040x}"

    def hash(self) -> str:
        return f"0x{self.rng.getrandbits(256):064x}"
