"""A key, and what is called what."""

from __future__ import annotations

from sandbox.coinbase import keys
from sandbox.debank.keys import DEBANK_KEY

KEY = {"coinbase": keys.KEY_PEM, "debank": DEBANK_KEY}
