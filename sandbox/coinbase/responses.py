"""Coinbase's JSON: one function per kind of record, dicts in the vendor's field order.

https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions
https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/rest-api
Amounts are strings with the currency's digits; a number that is not money stays a number.
"""

from __future__ import annotations

import json

from sandbox.coinbase.history import CoinbaseHistory
from sandbox.world.amounts import decimal_text
from sandbox.world.exchange_fills import Fill
from sandbox.world.exchange_records import Currency, Entry, Wallet
from sandbox.world.moments import iso, iso_micros

_TITLES = {"send": "Sent", "trade": "Converted", "fiat_deposit": "Deposited funds"}


def money(units: int, currency: Currency) -> dict:
    return {"amount": decimal_text(units, currency.exponent), "currency": currency.code}


def _native(units: int, currency: Currency) -> dict:
    cents = abs(units) * currency.usd_micros // 10 ** (currency.exponent + 4)
    return {"amount": decimal_text(-cents if units < 0 else cents, 2), "currency": "USD"}


def _created(row: Entry) -> str:
    """Its time, sometimes with the offset of another zone, or without seconds."""
    if row.time_form == "offset":
        return f"{iso(row.created + 7200)[:-1]}+02:00"
    return f"{iso(row.created)[:16]}Z" if row.time_form == "minutes" else iso(row.created)


def transaction(row: Entry, now: int) -> str:
    """JSON text of a v2 transaction as it stands at `now`."""
    state = (row.status(now), row.network_status(now) or "")
    if row.json_text is None or row.json_text[0] != state:
        row.json_text = (state, json.dumps(_transaction(row, now)))
    return row.json_text[1]


def _transaction(row: Entry, now: int) -> dict:
    path = f"/v2/accounts/{row.wallet_id}"
    record = {
        "amount": money(row.units, row.currency) if row.has_amount else None,
        "created_at": _created(row),
        "description": None,
        "details": {
            "title": _TITLES.get(row.type, row.type.replace("_", " ").capitalize()),
            "subtitle": row.wallet,
        },
        "id": row.id,
        "native_amount": _native(row.units, row.currency),
        "resource": "transaction",
        "resource_path": f"{path}/transactions/{row.id}",
        "status": row.status(now),
        "type": row.type,
        "updated_at": iso(row.updated(now)),
    }
    if row.order:
        record["advanced_trade_fill"] = row.order
    if row.trade_id:
        record["trade"] = {
            "id": row.trade_id,
            "resource": "trade",
            "resource_path": f"{path}/trades/{row.trade_id}",
            "fee": {"amount": "0.00", "currency": "USD"},
        }
    if row.tx_hash:
        record["network"] = {
            "hash": row.tx_hash,
            "network_name": row.currency.network,
            "status": row.network_status(now),
        }
        if row.fee_units is not None:
            record["network"]["transaction_fee"] = money(row.fee_units, row.currency)
            record["network"]["transaction_amount"] = money(
                -row.units - row.fee_units, row.currency
            )
    if row.type == "send":
        if row.units < 0:
            record["idem"] = f"{row.id[:8]}-idem"
            record["to"] = {"address": row.address, "resource": "address"}
        else:
            record["from"] = {
                "currency": row.currency.code,
                "resource": f"{row.currency.network}_network",
            }
    if row.type in ("fiat_deposit", "fiat_withdrawal"):
        noun = "deposits" if row.units > 0 else "withdrawals"
        record[row.type] = {
            "id": row.id,
            "resource": row.type,
            "resource_path": f"{path}/{noun}/{row.id}",
        }
    return record


def fill(record: Fill, user_id: str) -> str:
    if record.json_text is None:
        record.json_text = json.dumps(
            {
                "entry_id": record.entry_id,
                "trade_id": record.trade_id,
                "order_id": record.order_id,
                "trade_time": iso_micros(record.traded),
                "trade_type": record.trade_type,
                "price": record.price,
                "size": record.size,
                "commission": record.commission,
                "product_id": record.product,
                "sequence_timestamp": iso_micros(record.sequence),
                "liquidity_indicator": record.liquidity,
                "size_in_quote": record.size_in_quote,
                "user_id": user_id,
                "side": record.side,
                "retail_portfolio_id": user_id,
            }
        )
    return record.json_text


def currency(wallet: Wallet) -> dict:
    """What a wallet is of."""
    known, code, asset_id = wallet.currency, wallet.currency.code, wallet.asset_id
    if wallet.type == "fiat":
        return {
            "code": code,
            "color": "#0066cf",
            "exponent": 2,
            "name": known.name,
            "slug": code.lower(),
            "type": "fiat",
        }
    return {
        "asset_id": asset_id,
        "code": code,
        "color": "#0033AD",
        "exponent": known.exponent,
        "name": known.name,
        "rewards": {"apy": "0.02", "formatted_apy": "2.00%", "label": "2.00% APY"}
        if code == "ADA"
        else None,
        "slug": known.name.lower().replace(" ", "-"),
        "type": "crypto",
    }


def account(history: CoinbaseHistory, name: str, now: int) -> dict:
    """A v2 account: what Coinbase calls a wallet."""
    wallet = history.wallets[name]
    units = history.wallet_units(name, now)
    return {
        "id": wallet.id,
        "name": name,
        "primary": wallet.primary,
        "type": wallet.type,
        "balance": money(units, wallet.currency) if wallet.has_balance else None,
        "created_at": None if wallet.opened is None else iso(wallet.opened),
        "updated_at": iso(history.wallet_updated(name, now)),
        "resource": "account",
        "resource_path": f"/v2/accounts/{wallet.id}",
        "currency": currency(wallet) if wallet.has_balance else None,
        "allow_deposits": True,
        "allow_withdrawals": True,
    }


def brokerage_account(history: CoinbaseHistory, name: str, now: int) -> dict:
    """A v3 account. Nothing is on hold: the sandbox places no orders."""
    wallet = history.wallets[name]
    code, exponent = wallet.currency.code, wallet.currency.exponent
    opened = iso_micros(history.start * 1_000_000)
    return {
        "uuid": wallet.id,
        "name": name,
        "currency": code,
        "available_balance": {
            "value": decimal_text(history.wallet_units(name, now), exponent),
            "currency": code,
        },
        "default": wallet.primary,
        "active": True,
        "created_at": opened,
        "updated_at": opened,
        "deleted_at": None,
        "type": "ACCOUNT_TYPE_FIAT" if wallet.type == "fiat" else "ACCOUNT_TYPE_CRYPTO",
        "ready": True,
        "hold": {"value": decimal_text(0, exponent), "currency": code},
        "retail_portfolio_id": history.user_id,
        "platform": "ACCOUNT_PLATFORM_CONSUMER",
    }
