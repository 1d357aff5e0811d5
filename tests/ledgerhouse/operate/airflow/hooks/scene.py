"""A key, and what is called what."""

from __future__ import annotations

from sandbox import keys

KEY = {"coinbase": keys.KEY_PEM, "debank": keys.DEBANK_KEY}
