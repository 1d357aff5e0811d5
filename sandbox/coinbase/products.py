"""Coinbase's list of products: spot markets, and dated futures.

https://docs.cdp.coinbase.com/api-reference/advanced-trade-api/rest-api/products/list-products
"""

from __future__ import annotations

from sandbox.world.amounts import decimal_text
from sandbox.world.exchange_fills import FUTURES, PRODUCTS
from sandbox.world.exchange_records import CURRENCIES


def spot(name: str) -> dict:
    base, quote, price_digits, size_digits = PRODUCTS[name]
    price = CURRENCIES[base].usd_micros // 10 ** (6 - price_digits)
    return {
        "product_id": name,
        "price": decimal_text(price, price_digits),
        "price_percentage_change_24h": "1.02",
        "volume_24h": "10967.87",
        "base_increment": decimal_text(1, size_digits),
        "quote_increment": decimal_text(1, price_digits),
        "quote_min_size": "1",
        "quote_max_size": "150000000",
        "base_min_size": decimal_text(1, size_digits),
        "base_max_size": "3400",
        "base_name": CURRENCIES[base].name,
        "quote_name": CURRENCIES[quote].name,
        "watched": False,
        "is_disabled": False,
        "new": False,
        "status": "online",
        "cancel_only": False,
        "limit_only": False,
        "post_only": False,
        "trading_disabled": False,
        "auction_mode": False,
        "product_type": "SPOT",
        "quote_currency_id": quote,
        "base_currency_id": base,
        "fcm_trading_session_details": None,
        "mid_market_price": "",
        "alias": "",
        "alias_to": [],
        "base_display_symbol": base,
        "quote_display_symbol": quote,
        "view_only": False,
        "price_increment": decimal_text(1, price_digits),
        "display_name": name,
        "product_venue": "CBE",
    }


def future(name: str) -> dict:
    """A dated future: its contract says what it is of, its base is empty."""
    root, quote, size, expiry = FUTURES[name]
    return {
        "product_id": name,
        "price": "67060",
        "base_increment": "1",
        "quote_increment": "5",
        "base_min_size": "1",
        "base_max_size": "10000",
        "base_name": "",
        "quote_name": CURRENCIES[quote].name,
        "is_disabled": False,
        "status": "",
        "trading_disabled": False,
        "product_type": "FUTURE",
        "quote_currency_id": quote,
        "base_currency_id": "",
        "future_product_details": {
            "venue": name.rsplit("-", 1)[1].lower(),
            "contract_code": name.split("-")[0],
            "contract_expiry": expiry,
            "contract_size": size,
            "contract_root_unit": root,
            "group_description": f"nano {CURRENCIES[root].name} Futures",
            "contract_expiry_timezone": "Europe/London",
            "group_short_description": f"nano {root}",
            "risk_managed_by": "MANAGED_BY_FCM",
            "contract_expiry_type": "EXPIRING",
            "perpetual_details": None,
            "contract_display_name": f"nano {root} {name.split('-')[1]}",
            "non_crypto": False,
        },
        "alias": "",
        "alias_to": [],
        "base_display_symbol": "",
        "quote_display_symbol": quote,
        "view_only": False,
        "price_increment": "5",
        "display_name": f"nano {root} {name.split('-')[1]}",
        "product_venue": "FCM",
    }
