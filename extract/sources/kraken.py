"""Kraken: one ledger of everything, whose rows carry the balance after them.

https://docs.kraken.com/api/docs/rest-api/get-ledgers-info

Times are seconds with a fraction; `start` is exclusive, `end` inclusive. Amounts do not hold their
fee. Codes like ADA.S and XBT.F are the same asset in another wallet (staked, earning), so a move
there is two entries that add up to nothing. A key's nonce must rise with every call.
Limits: a counter up to 15 (starter) that falls by 0.33 a second; a ledger call adds 2.
"""

from __future__ import annotations

from extract.core.source import Rate
from extract.ledger import Balances, Exchange, Fee, Ledger, Offset, source

PAGE = 50
SUFFIX = r"'\.(S|M|B|F|P|HOLD)$'"


def _asset(code: str) -> str:
    return f"regexp_replace({code}, {SUFFIX}, '')"


def _wallet(code: str) -> str:
    return f"coalesce(nullif(regexp_extract({code}, {SUFFIX}, 1), ''), 'spot')"


# A code with a suffix has the short form of an old code: XBT.F is XXBT, EUR.HOLD is ZEUR.
OLD = "XXBT XETH XLTC XXRP XXLM XXMR XZEC XETC XREP XMLN XXDG ZUSD ZEUR ZGBP ZCAD ZJPY ZAUD".split()

KRAKEN = Exchange(
    name="kraken",
    title="Kraken",
    documentation="https://docs.kraken.com/api/docs/rest-api/get-ledgers-info",
    host="https://api.kraken.com",
    ccxt="kraken",
    secret="private key",
    permission="Query funds, Query ledger entries",
    ok=("error", "[]"),
    message="error.0",
    key_errors=("EAPI:Invalid signature",),
    aliases={code[1:]: code for code in OLD},
    one_caller=True,
    rates={"/0/private/": Rate(1, 6, burst=7), "/0/private/BalanceEx": Rate(1, 3, burst=2)},
    ledgers=(
        Ledger(
            call="privatePostLedgers",
            endpoint="/0/private/Ledgers",
            rows="result.ledger",
            shape="map",
            paging=Offset("ofs", PAGE, count="result.count"),
            time=("time", "s"),
            since=("start", "s"),
            until=("end", "s"),
            id="_key",
            asset=_asset("row.asset"),
            wallet=_wallet("row.asset"),
            fee=Fee("fee", apart=True),
            balance="balance",
            type="row.type || coalesce('/' || nullif(row.subtype, ''), '')",
            kind_by="CASE row.type WHEN 'earn' THEN 'earn/' || row.subtype ELSE row.type END",
            kinds={
                "trade": "trade",
                "spend": "trade",
                "receive": "trade",
                "sale": "trade",
                "margin": "trade",
                "settled": "trade",
                "conversion": "conversion",
                "deposit": "deposit",
                "withdrawal": "withdrawal",
                "transfer": "transfer",
                "custodytransfer": "transfer",
                "earn/allocation": "transfer",
                "earn/deallocation": "transfer",
                "earn/autoallocation": "transfer",
                "earn/migration": "transfer",
                "earn/reward": "reward",
                "staking": "reward",
                "dividend": "reward",
                "reward": "reward",
                "invite bonus": "reward",
                "credit": "reward",
                "adjustment": "conversion",
                "rollover": "fee",
            },
            trade="refid",
            known="aclass",
        ),
    ),
    balances=(
        Balances(
            call="privatePostBalanceEx",
            endpoint="/0/private/BalanceEx",
            rows="result",
            shape="map",
            asset=_asset("row._key"),
            wallet=_wallet("row._key"),
            amount="balance",
        ),
    ),
)

SOURCE = source(KRAKEN)
