"""The datasets: columns, types and keys of the raw tables, the same for every source.

Times are TIMESTAMP in UTC. Amounts come twice: `<name>_text` is the text exactly as in the
API response, `<name>` is DECIMAL(38,18), NULL where the text does not fit. No column is a float.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of a raw table: its DuckDB type, and what it holds (with its unit)."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class Dataset:
    """One raw table, `raw.<name>`: rows about the same kind of thing from any source.

    `part_column` holds the part of the account (see extract.core.source) that a row belongs to.
    `key` names a row. Rows that share `group` belong together and are replaced together
    (the legs of one transaction). `dimension` tables are small and have no event time.
    `added` are columns that an older version did not have: where all of them are NULL, a row's
    hash is the one that version gave it, so that a row read again is the same row.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    group: tuple[str, ...] = ()
    dimension: bool = False
    moves_balances: bool = True
    part_column: str = ""
    added: tuple[str, ...] = ()

    @property
    def has_history(self) -> bool:
        """Rows about events, which a vendor lists by time (not snapshots, not dimensions)."""
        return self.moves_balances and not self.dimension

    @property
    def table(self) -> str:
        return f"raw.{self.name}"


MONEY = "DECIMAL(38,18)"


def _text(name: str, comment: str) -> Column:
    return Column(name, "VARCHAR", comment)


def _money(name: str, comment: str) -> tuple[Column, Column]:
    return (
        Column(f"{name}_text", "VARCHAR", f"{comment}; exactly as in the API response"),
        Column(name, MONEY, f"{comment}; NULL where it does not fit DECIMAL(38,18)"),
    )


SOURCE = _text("source", "the API the row came from, e.g. coinbase")
ACCOUNT = _text("account", "the account within the source: a name, or a wallet address")
TS = Column("ts", "TIMESTAMP", "when it happened, UTC")
PAYLOAD = _text("payload", "the record as JSON text, bare numbers quoted, otherwise untouched")
# Written by the loader, on every raw table.
META = (
    Column(
        "row_hash", "UBIGINT", "hash of the row's columns: two versions differ where it differs"
    ),
    Column("first_seen_at", "TIMESTAMP", "when the row was first read, by the vendor's clock, UTC"),
    Column(
        "changed_at", "TIMESTAMP", "when this version was first read, by the vendor's clock, UTC"
    ),
    Column("batch_id", "VARCHAR", "the load that wrote this version (ops.batches)"),
    Column(
        "vanished_at",
        "TIMESTAMP",
        "when a complete listing of its time no longer had the row, by the vendor's clock, UTC; "
        "NULL while the vendor lists it",
    ),
)
EXCHANGES_TRADES = Dataset(
    "exchanges_trades",
    (
        SOURCE,
        ACCOUNT,
        _text("symbol", "market, unified as BASE/QUOTE (BASE/QUOTE:SETTLE for swaps)"),
        _text("trade_id", "the exchange's id of the fill; unique within the symbol"),
        TS,
        _text("order_id", "the order the fill belongs to"),
        _text("base", "asset bought or sold"),
        _text("quote", "asset the price is in"),
        _text("side", "buy or sell"),
        *_money("price", "quote units per base unit"),
        *_money("amount", "base units; NULL where the exchange gives the size in quote units"),
        *_money("cost", "quote units, before the fee; NULL where the response has none"),
        *_money("fee", "fee, in fee_asset units"),
        _text("fee_asset", "asset the fee was paid in"),
        _text("liquidity", "maker or taker"),
        PAYLOAD,
    ),
    key=("source", "account", "symbol", "trade_id"),
)
EXCHANGES_LEDGER = Dataset(
    "exchanges_ledger",
    (
        SOURCE,
        ACCOUNT,
        _text("entry_id", "the exchange's id of the ledger entry"),
        TS,
        _text("wallet", "the exchange's id of the sub-account"),
        _text("type", "the exchange's own type, e.g. staking_reward"),
        _text("kind", "trade, deposit, withdrawal, conversion, reward, transfer, fee or unknown"),
        _text("status", "the exchange's own status, e.g. pending"),
        Column("is_settled", "BOOLEAN", "true when the entry is final and moves the balance"),
        _text("asset", "asset code"),
        *_money("amount", "signed change of the balance in asset units, fees included"),
        *_money("fee", "fee contained in amount, in fee_asset units"),
        _text("fee_asset", "asset of the fee"),
        _text("network", "blockchain, where the entry crossed one"),
        _text("tx_hash", "transaction on that blockchain"),
        _text("order_id", "order, for entries made by trades"),
        _text("trade_id", "pairs the two entries of a conversion"),
        PAYLOAD,
        *_money("balance", "what the wallet holds after the entry, where the vendor says it"),
    ),
    key=("source", "account", "entry_id"),
    part_column="wallet",
    added=("balance_text", "balance"),
)
ONCHAIN_TRANSACTIONS = Dataset(
    "onchain_transactions",
    (
        SOURCE,
        ACCOUNT,
        _text("chain", "blockchain, e.g. eth"),
        _text("tx_id", "transaction hash"),
        TS,
        _text("category", "send, receive, approve or NULL"),
        _text("method", "contract method called"),
        Column("status", "INTEGER", "1 succeeded, 0 failed, NULL not a transaction of its own"),
        Column("is_scam", "BOOLEAN", "flagged as a scam by the source"),
        _text("from_addr", "sender of the transaction"),
        _text("to_addr", "what the transaction called"),
        _text("other_addr", "counterparty named by the source"),
        _text("project", "protocol named by the source"),
        _text("cex", "exchange named by the source"),
        Column("pays_gas", "BOOLEAN", "the account sent the transaction, so its gas is its own"),
        *_money("gas", "gas paid, in units of the chain's native token"),
        _text("approve_token", "token approved, for approvals"),
        _text("approve_spender", "spender approved, for approvals"),
        _text("approve_text", "allowance, exactly as in the API response"),
        PAYLOAD,
    ),
    key=("source", "account", "chain", "tx_id"),
    part_column="chain",
)
ONCHAIN_TRANSFERS = Dataset(
    "onchain_transfers",
    (
        SOURCE,
        ACCOUNT,
        _text("chain", "blockchain, e.g. eth"),
        _text("tx_id", "transaction hash"),
        _text("direction", "in or out, seen from the account"),
        Column("leg", "INTEGER", "1, 2, … within the direction, by (token, counterparty, amount)"),
        TS,
        _text("token", "token id within the chain: a contract address, or a name such as eth"),
        _text("counterparty", "the other address"),
        *_money("amount", "units of the token, never negative, not yet rounded to its decimals"),
        Column("is_scam", "BOOLEAN", "the transaction is flagged as a scam by the source"),
        Column("is_settled", "BOOLEAN", "false for legs of a failed transaction"),
        PAYLOAD,
    ),
    key=("source", "account", "chain", "tx_id", "direction", "leg"),
    group=("source", "account", "chain", "tx_id"),
    part_column="chain",
)
ONCHAIN_TOKENS = Dataset(
    "onchain_tokens",
    (
        SOURCE,
        _text("chain", "blockchain, e.g. eth"),
        _text("token", "token id within the chain"),
        _text("symbol", "ticker; chosen by the token's maker, so not unique"),
        _text("name", "name; chosen by the token's maker"),
        Column("decimals", "INTEGER", "digits after the point that the token can hold"),
        Column("is_verified", "BOOLEAN", "the source verified it"),
    ),
    key=("source", "chain", "token"),
    dimension=True,
)
ONCHAIN_CHAINS = Dataset(
    "onchain_chains",
    (
        SOURCE,
        _text("chain", "blockchain, e.g. eth"),
        _text("name", "name"),
        _text("native_token", "id, within the chain, of the token in which gas is paid"),
        _text("wrapped_token", "id of the wrapped native token; NULL where there is none"),
    ),
    key=("source", "chain"),
    dimension=True,
)
SNAPSHOT_TS = Column("ts", "TIMESTAMP", "instant of the snapshot by the vendor's clock, UTC")
BALANCES = Dataset(
    "balances",
    (
        SOURCE,
        ACCOUNT,
        _text("wallet", "the exchange's sub-account, or the chain"),
        _text("token", "asset code, or chain:token as in curated.tx_unified"),
        SNAPSHOT_TS,
        *_money("amount", "units the vendor reports"),
        PAYLOAD,
        *_money("price", "the vendor's price of a unit, USD; NULL or 0 where it knows none"),
        Column(
            "is_verified", "BOOLEAN", "the vendor verified the token; NULL where it says nothing"
        ),
    ),
    key=("source", "account", "wallet", "token", "ts"),
    moves_balances=False,
)
POSITIONS = Dataset(
    "positions",
    (
        SOURCE,
        ACCOUNT,
        _text("position", "protocol and number of the position within its answer"),
        _text("role", "supply, borrow, reward or staked"),
        _text("token", "chain:token, as in curated.tx_unified"),
        SNAPSHOT_TS,
        _text("chain", "blockchain, e.g. eth"),
        _text("protocol", "id of the protocol, e.g. aave3"),
        _text("name", "what the vendor calls the position, e.g. Lending"),
        _text("symbol", "ticker of the token"),
        *_money("amount", "units of the token; owed where the role is borrow"),
        *_money("price", "the vendor's price of a unit, USD; NULL or 0 where it knows none"),
        PAYLOAD,
    ),
    key=("source", "account", "position", "role", "token", "ts"),
    moves_balances=False,
)
# Order matters: a load fills them in this order.
DATASETS: dict[str, Dataset] = {
    d.name: d
    for d in (
        ONCHAIN_CHAINS,
        ONCHAIN_TOKENS,
        EXCHANGES_LEDGER,
        EXCHANGES_TRADES,
        ONCHAIN_TRANSACTIONS,
        ONCHAIN_TRANSFERS,
        BALANCES,
        POSITIONS,
    )
}
