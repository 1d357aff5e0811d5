"""DeBank's JSON. Every float here is an amount's own text read back, so it prints the same.

https://docs.cloud.debank.com/en/readme/api-pro-reference/user
"""

from __future__ import annotations

import json
from decimal import Decimal

from sandbox.world.amounts import decimal_text, float_text, rounded_text
from sandbox.world.chain_mess import Deposit
from sandbox.world.chain_records import Leg, Tx
from sandbox.world.mess_tokens import ALL_CHAINS, ALL_NATIVE, ALL_TOKENS, INFINITE
from sandbox.world.moments import DAY, iso
from sandbox.world.tokens import CEX, CHAINS, Token

_STATIC = "https://static.debank.com/image"
_TOKEN_BIRTH = 1_560_678_147
_NUMBER = {token: number for number, token in enumerate(ALL_TOKENS)}


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


def _usd(units: int, token: Token) -> Decimal:
    return Decimal(decimal_text(units, token.decimals)) * Decimal(token.price)


def item(tx: Tx, now: int) -> str:
    """JSON text of one history item, in its first or its last version."""
    if tx.json_text is None:
        last = json.dumps(_item(tx, tx.changes_at))
        first = last if tx.changes_at == tx.visible_at else json.dumps(_item(tx, tx.visible_at))
        tx.json_text = (first, last)
    return tx.json_text[now >= tx.changes_at]


def _item(tx: Tx, now: int) -> dict:
    legs, marks = tx.legs_at(now), tx.marks
    record = {
        "cate_id": tx.cate_at(now),
        "cex_id": tx.cex,
        "chain": tx.chain,
        "id": tx.id,
        "idx": marks % 300 if tx.idx is None else tx.idx,
        "is_scam": tx.is_scam,
        "other_addr": tx.other_addr,
        "project_id": tx.project,
        "receives": [_leg(leg, "from_addr", marks) for leg in legs if leg.direction == "in"],
        "sends": [_leg(leg, "to_addr", marks) for leg in legs if leg.direction == "out"],
        "time_at": _number(tx.time_wire),
        "token_approve": None,
        "tx": _tx(tx, legs, marks),
    }
    if tx.approve:
        token, spender, value = tx.approve
        record["token_approve"] = {
            "spender": spender,
            "token_id": token.id,
            "value": _number(value),
        }
    if marks % 17 == 0:
        del record["other_addr"]
    if tx.nulls:
        record |= {"idx": None, "is_scam": None, "other_addr": None, "cate_id": None}
        record |= {side: None for side in ("sends", "receives") if not record[side]}
    return record


def _leg(leg: Leg, other: str, marks: int) -> dict:
    record = {"amount": float(leg.api_text), other: leg.counterparty, "token_id": leg.token.id}
    if marks % 3:
        record["price"] = _number(leg.token.price)
    return record


def _tx(tx: Tx, legs: list[Leg], marks: int) -> dict | None:
    if tx.from_addr is None:
        return None
    value = next(
        (
            leg.api_text
            for leg in legs
            if leg.token is ALL_NATIVE[tx.chain] and leg.direction == "out"
        ),
        "0",
    )
    record = {
        "from_addr": tx.from_addr,
        "name": tx.name,
        "params": [],
        "selector": f"0x{marks:08x}",
        "status": tx.status,
        "to_addr": tx.to_addr,
        "value": _number(value) if tx.pays_gas else 0,
        "eth_gas_fee": float(float_text(tx.gas, 18)),
        "usd_gas_fee": float(_usd(tx.gas, ALL_NATIVE[tx.chain])),
    }
    if not tx.shows_gas:
        del record["eth_gas_fee"], record["usd_gas_fee"]
    if tx.gas_is_null:
        record |= {"eth_gas_fee": None, "usd_gas_fee": None}
    return record


def _token(token: Token) -> dict:
    return {
        "id": token.id,
        "chain": token.chain,
        "name": token.name,
        "symbol": token.symbol,
        "display_symbol": None,
        "optimized_symbol": token.symbol,
        "decimals": None if token.nameless else token.decimals,
        "logo_url": None
        if token.is_scam
        else f"{_STATIC}/{token.chain}_token/logo_url/{token.id}.png",
        "protocol_id": "",
        "price": _number(token.price),
        "price_24h_change": None,
        "is_verified": token.is_verified,
        "is_core": token.is_verified,
        "is_wallet": token.is_verified,
        "time_at": _TOKEN_BIRTH + DAY * _NUMBER[token],
    }


_TOKEN_TEXT = {token: json.dumps(_token(token)) for token in ALL_TOKENS}
_CATES = json.dumps(
    {
        "approve": {"id": "approve", "name": "Authorize"},
        "receive": {"id": "receive", "name": "Receive"},
        "send": {"id": "send", "name": "Send"},
    }
)


def history(page: list[Tx], now: int) -> str:
    """The history object. Its dictionaries leave some tokens and projects out, as the vendor's do;
    token_dict is keyed by the id alone, so one address on two chains keeps one entry."""
    salt = int(page[0].id[2:6], 16) if page else 0
    tokens: dict[str, str] = {}
    projects: dict[str, dict] = {}
    exchanges: dict[str, dict] = {}
    for tx in page:
        named = [leg.token for leg in tx.legs_at(now)] + ([tx.approve[0]] if tx.approve else [])
        for token in named:
            if (salt + _NUMBER[token]) % 13 and not token.is_nft:
                tokens[token.id] = _TOKEN_TEXT[token]
        if tx.project and (salt + len(tx.project)) % 7:
            projects[tx.project] = {
                "chain": tx.chain,
                "id": tx.project,
                "logo_url": f"{_STATIC}/project/logo_url/{tx.project}.png",
                "name": tx.project.split("_")[-1].capitalize(),
                "site_url": "https://example.org",
            }
        if tx.cex:
            name = CEX[tx.cex]
            exchanges[tx.cex] = {
                "id": name,
                "is_vault": True,
                "logo_url": f"{_STATIC}/cex/logo_url/{name}.png",
                "name": name.capitalize(),
            }
    named_tokens = ", ".join(f'"{token_id}": {text}' for token_id, text in tokens.items())
    return (
        f'{{"cate_dict": {_CATES}, "cex_dict": {json.dumps(exchanges)}, '
        f'"history_list": [{", ".join(item(tx, now) for tx in page)}], '
        f'"project_dict": {json.dumps(projects)}, "token_dict": {{{named_tokens}}}}}'
    )


def balance(token: Token, units: int) -> dict:
    """An entry of the token lists; only raw_amount_hex_str is exact."""
    infinite = {"is_infinity": True} if token is INFINITE else {}
    return (
        _token(token)
        | infinite
        | {
            "amount": float(float_text(units, token.decimals)),
            "raw_amount": _number(rounded_text(units)),
            "raw_amount_hex_str": hex(units),
        }
    )


def chain(chain_id: str) -> dict:
    number, name, wrapped = ALL_CHAINS[chain_id]
    return {
        "id": chain_id,
        "community_id": number,
        "name": name,
        "native_token_id": ALL_NATIVE[chain_id].id,
        "logo_url": f"{_STATIC}/chain/logo_url/{chain_id}.png",
        "wrapped_token_id": wrapped,
    }


def total(sums: dict[Token, int]) -> dict:
    worth = {chain_id: Decimal(0) for chain_id in CHAINS}
    for token, units in sums.items():
        worth.setdefault(token.chain, Decimal(0))
        worth[token.chain] += _usd(units, token)
    chains = [chain(chain_id) | {"usd_value": float(usd)} for chain_id, usd in worth.items()]
    return {"total_usd_value": float(sum(worth.values())), "chain_list": chains}


def protocols(deposits: list[Deposit], now: int) -> list[dict]:
    """all_complex_protocol_list: one protocol per project and chain, one portfolio item per pool."""
    found: dict[tuple[str, str], dict] = {}
    for deposit in deposits:
        token, name = deposit.token, deposit.project.split("_")[-1]
        site = {"name": name.capitalize(), "site_url": "https://example.org", "tvl": 1234567.5}
        protocol = found.setdefault(
            (token.chain, deposit.project),
            {
                "id": deposit.project,
                "chain": token.chain,
                **site,
                "logo_url": f"{_STATIC}/project/logo_url/{deposit.project}.png",
                "has_supported_portfolio": True,
                "portfolio_item_list": [],
            },
        )
        amount = float(float_text(deposit.units, token.decimals))
        worth = float(_usd(deposit.units, token))
        pool = {
            "id": deposit.pool,
            "chain": token.chain,
            "project_id": deposit.project,
            "adapter_id": f"{name}_lending",
            "controller": deposit.pool,
            "index": None,
            "time_at": deposit.tx.time,
        }
        protocol["portfolio_item_list"].append(
            {
                "stats": {
                    "asset_usd_value": worth,
                    "debt_usd_value": 0,
                    "net_usd_value": worth,
                },
                "asset_dict": {token.id: amount},
                "update_at": float(now),
                "name": "Lending",
                "detail_types": ["lending"],
                "detail": {"supply_token_list": [_token(token) | {"amount": amount}]},
                "proxy_detail": {},
                "pool": pool,
            }
        )
    return list(found.values())


def units(balance: int, spent: dict[str, int], now: int, days: int) -> dict:
    """`spent` by date; `remains` is the balance at the end of that day, newest day first."""
    stats, remains = [], balance
    for back in range(days):
        date = iso(now - back * DAY)[:10]
        usage = spent.get(date, 0)
        stats.append({"usage": usage, "remains": remains, "date": date})
        remains += usage
    return {"balance": balance, "stats": stats}
