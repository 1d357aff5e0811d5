"""What is called of Binance, and what its fields mean: one list for each kind of movement.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api and …/docs/wallet, …/simple_earn,
…/convert, …/fiat

Wallets: "spot", "funding", "earn" (flexible and locked products). A coin LDxyz in the spot wallet is
the receipt of a flexible product, the same money as its position, and is left out.

- A withdrawal's `amount` is what arrives; the fee goes out beside it.
- A dust conversion's `transferedAmount` is taken for what BNB came in, net of the charge.
- Rewards of earn: real-time ones grow the position. All others are paid to spot, where the list of
  dividends tells of them, so they are listed and not counted here.
- Cards pay for fiat payments from outside, unless the method is "Cash Balance".
- Transfers with futures, margin and options are the half of them that spot or funding sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from extract.core.errors import Retriable
from extract.core.source import Rate
from extract.ledger import (
    Balances,
    Call,
    Exchange,
    Fills,
    Ledger,
    Leg,
    Offset,
    OnePage,
    PageNumber,
    composite,
)
from extract.ledger.paging import Next, PageOf

MY_TRADES = "/api/v3/myTrades"
EARN = "/sapi/v1/simple-earn/"
WALLET = "CASE row.walletType WHEN '1' THEN 'funding' ELSE 'spot' END"
PRODUCTS = "MAIN_UMFUTURE MAIN_CMFUTURE MAIN_MARGIN MAIN_OPTION FUNDING_UMFUTURE FUNDING_CMFUTURE"
TRANSFERS = f"MAIN_FUNDING {PRODUCTS} FUNDING_MARGIN FUNDING_OPTION".split()


class FromId:
    """Trades of a market from an id on, oldest first; the next page begins behind the last."""

    size = 1000

    def first(self) -> Mapping[str, object]:
        return {"limit": self.size}

    def next(self, page: PageOf) -> Next:
        ids = [int(row["id"]) for row in page.data]
        if ids != sorted(ids):
            raise Retriable("trades are not in the order of their ids, so none is the last")
        if len(ids) < self.size:
            return Next(None, "a page that is not full")
        return Next({"fromId": str(ids[-1] + 1)})


SYMBOLS = Call(
    call="publicGetExchangeInfo",
    endpoint="/api/v3/exchangeInfo",
    rows="symbols",
    params={"showPermissionSets": "false"},
)

TRADES = Ledger(
    call="privateGetMyTrades",
    endpoint=MY_TRADES,
    time=("time", "ms"),
    newest_first=False,
    paging=FromId(),
    id="'trade:' || row.symbol || ':' || row.id",
    type="'trade'",
    order="orderId",
    trade="row.symbol || ':' || row.id",
    legs=(
        Leg("base", "params->>'$.base'", "qty", "row.isBuyer = 'false'", kind="trade"),
        Leg("quote", "params->>'$.quote'", "quoteQty", "row.isBuyer = 'true'", kind="trade"),
        Leg("fee", "commissionAsset", "commission", "true", kind="fee"),
    ),
    known="orderListId price isMaker isBestMatch",
)

FILLS = Fills(
    call="privateGetMyTrades",
    endpoint=MY_TRADES,
    time=("time", "ms"),
    base="params->>'$.base'",
    quote="params->>'$.quote'",
    side="CASE row.isBuyer WHEN 'true' THEN 'buy' ELSE 'sell' END",
    amount="qty",
    cost="quoteQty",
    fee="commission",
    fee_asset="commissionAsset",
    order="orderId",
    liquidity="CASE row.isMaker WHEN 'true' THEN 'maker' ELSE 'taker' END",
)


def _list(call: str, endpoint: str, when: str, days: int, **more: object) -> Ledger:
    """A list that is asked for by time, at most `days` at once."""
    facts = {
        "time": (when, "ms"),
        "since": ("startTime", "ms"),
        "until": ("endTime", "ms"),
        "window": timedelta(days=days),
    }
    return Ledger(call=call, endpoint=endpoint, **{**facts, **more})  # type: ignore[arg-type]


def _earn(name: str, what: str, **more: object) -> Ledger:
    """A list of simple earn: `name` is Flexible or Locked."""
    return _list(
        f"sapiGetSimpleEarn{name}History{what}Record",
        f"{EARN}{name.lower()}/history/{what[0].lower()}{what[1:]}Record",
        "time",
        30,
        rows="rows",
        paging=PageNumber("current", 100, limit="size"),
        **more,
    )


def _subscription(name: str, known: str) -> Ledger:
    """Money goes from spot, funding or both into a product."""
    return _earn(
        name,
        "Subscription",
        id=f"'{name.lower()}-subscription:' || row.purchaseId",
        type=f"'{name.lower()} subscription'",
        status="CASE row.status WHEN 'PURCHASING' THEN 'pending' ELSE row.status END",
        settled="SUCCESS",
        legs=(
            Leg(
                "spot", "asset",
                "coalesce(row.amtFromSpot, CASE WHEN row.sourceAccount IS DISTINCT FROM 'FUNDING' "
                "AND row.amtFromFunding IS NULL THEN row.amount END, '0')",
                "true", kind="transfer",
            ),
            Leg(
                "funding", "asset",
                "coalesce(row.amtFromFunding, CASE WHEN row.sourceAccount = 'FUNDING' "
                "THEN row.amount END, '0')",
                "true", "'funding'", "transfer",
            ),
            Leg("earn", "asset", "amount", wallet="'earn'", kind="transfer"),
        ),
        known=known,
    )  # fmt: skip


def _redemption(name: str, gone: str, target: str, known: str) -> Ledger:
    """Money comes out of a product; `gone` is how much the position loses."""
    return _earn(
        name,
        "Redemption",
        id=f"'{name.lower()}-redemption:' || row.redeemId",
        type=f"'{name.lower()} redemption'",
        status="CASE WHEN row.status IN ('PAID', 'SUCCESS') THEN row.status ELSE 'pending' END",
        settled=("PAID", "SUCCESS"),
        legs=(
            Leg("earn", "asset", gone, "true", "'earn'", "transfer"),
            Leg("to", "asset", "amount", wallet=target, kind="transfer"),
        ),
        known=known,
    )


LISTS = (
    _list(
        "sapiGetCapitalDepositHisrec", "/sapi/v1/capital/deposit/hisrec", "insertTime", 89,
        paging=Offset("offset", 1000, limit="limit"),
        id="'deposit:' || coalesce(row.id, row.coin || ':' || row.txId)",
        wallet=WALLET,
        asset="coin",
        type="'deposit'",
        kinds={"deposit": "deposit"},
        status="CASE row.status WHEN '1' THEN 'success' WHEN '6' THEN 'credited' WHEN '0' THEN "
        "'pending' WHEN '8' THEN 'pending' WHEN '2' THEN 'rejected' WHEN '7' THEN 'wrong deposit' "
        "ELSE row.status END",
        settled=("success", "credited"),
        network="network",
        tx_hash="txId",
        known="address addressTag transferType confirmTimes unlockConfirm sourceAddress "
        "travelRuleStatus completeTime",
    ),
    _list(
        "sapiGetCapitalWithdrawHistory", "/sapi/v1/capital/withdraw/history", "applyTime", 89,
        time=("applyTime", "text"),
        paging=Offset("offset", 1000, limit="limit"),
        id="'withdrawal:' || row.id",
        wallet=WALLET,
        type="'withdrawal'",
        status="CASE row.status WHEN '6' THEN 'completed' WHEN '0' THEN 'pending' WHEN '2' THEN "
        "'pending' WHEN '4' THEN 'pending' WHEN '1' THEN 'cancelled' WHEN '3' THEN 'rejected' "
        "WHEN '5' THEN 'failed' ELSE row.status END",
        settled="completed",
        network="network",
        tx_hash="txId",
        legs=(
            Leg("amount", "coin", "amount", "true", kind="withdrawal"),
            Leg("fee", "coin", "transactionFee", "true", kind="fee"),
        ),
        known="address addressTag transferType info confirmNo txKey completeTime withdrawOrderId",
    ),
    _list(
        "sapiGetConvertTradeFlow", "/sapi/v1/convert/tradeFlow", "createTime", 30,
        rows="list",
        paging=OnePage(("limit", 1000), more="moreData"),
        id="'convert:' || row.orderId",
        type="'convert'",
        status="CASE WHEN row.orderStatus IN ('PROCESS', 'ACCEPT_SUCCESS') THEN 'pending' "
        "ELSE row.orderStatus END",
        settled="SUCCESS",
        order="orderId",
        trade="orderId",
        legs=(
            Leg("from", "fromAsset", "fromAmount", "true", kind="conversion"),
            Leg("to", "toAsset", "toAmount", kind="conversion"),
        ),
        known="quoteId ratio inverseRatio orderType side",
    ),
    _list(
        "sapiGetAssetDribblet", "/sapi/v1/asset/dribblet", "operateTime", 90,
        rows="userAssetDribblets",
        inner="userAssetDribbletDetails",
        paging=OnePage(("", 100)),
        id="'dust:' || row.transId || ':' || row.fromAsset",
        type="'dust'",
        trade="row.transId || ':' || row.fromAsset",
        legs=(
            Leg("from", "fromAsset", "amount", "true", kind="conversion"),
            Leg("to", "coalesce(row.targetAsset, 'BNB')", "transferedAmount", kind="conversion"),
        ),
        known="serviceChargeAmount",
    ),
    _list(
        "sapiGetAssetAssetDividend", "/sapi/v1/asset/assetDividend", "divTime", 180,
        rows="rows",
        paging=OnePage(("limit", 500)),
        id="'dividend:' || row.id",
        asset="asset",
        type="enInfo",
        kind_by="'reward'",
        kinds={"reward": "reward"},
        known="tranId direction",
    ),
    _subscription("Flexible", "productId type"),
    _subscription("Locked", "positionId projectId lockPeriod type"),
    _redemption(
        "Flexible", "amount", "CASE row.destAccount WHEN 'FUNDING' THEN 'funding' ELSE 'spot' END",
        "productId projectId",
    ),
    _redemption(
        "Locked", "coalesce(row.originalAmount, row.amount)", "'spot'",
        "positionId lockPeriod type deliverDate lossAmount isComplete rewardAsset rewardAmt "
        "extraRewardAsset estExtraRewardAmt",
    ),
    _earn(
        "Flexible", "Rewards",
        variants=tuple({"type": of} for of in ("REALTIME", "BONUS", "REWARDS")),
        id=composite("time", "asset", "type", "rewards", prefix="flexible-reward"),
        wallet="CASE row.type WHEN 'REALTIME' THEN 'earn' ELSE 'spot' END",
        amount="rewards",
        asset="asset",
        type="'flexible ' || row.type",
        status="CASE row.type WHEN 'REALTIME' THEN 'paid' ELSE 'in dividends' END",
        settled="paid",
        kind_by="'reward'",
        kinds={"reward": "reward"},
        known="projectId productId",
    ),
    _earn(
        "Locked", "Rewards",
        id=composite("time", "positionId", "asset", "amount", prefix="locked-reward"),
        asset="asset",
        type="coalesce(row.type, 'Locked Rewards')",
        status="'in dividends'",
        settled="paid",
        kind_by="'reward'",
        kinds={"reward": "reward"},
        known="lockPeriod",
    ),
    _list(
        "sapiGetFiatOrders", "/sapi/v1/fiat/orders", "createTime", 89,
        rows="data",
        since=("beginTime", "ms"),
        paging=PageNumber("page", 500, limit="rows"),
        variants=({"transactionType": "0"}, {"transactionType": "1"}),
        id="'fiat:' || row.orderNo",
        type="'fiat ' || coalesce(row.method, '')",
        status="CASE WHEN row.status IN ('Processing', 'Refunding') THEN 'pending' "
        "ELSE row.status END",
        settled=("Successful", "Finished"),
        kind_by="CASE params->>'$.transactionType' WHEN '1' THEN 'out' ELSE 'in' END",
        kinds={"in": "deposit", "out": "withdrawal"},
        legs=(
            Leg("amount", "fiatCurrency", "amount", "params->>'$.transactionType' = '1'"),
            Leg(
                "fee", "fiatCurrency",
                "CASE WHEN params->>'$.transactionType' = '1' THEN row.totalFee ELSE '0' END",
                "true", kind="fee",
            ),
        ),
        known="indicatedAmount updateTime",
    ),
    _list(
        "sapiGetFiatPayments", "/sapi/v1/fiat/payments", "createTime", 89,
        rows="data",
        since=("beginTime", "ms"),
        paging=PageNumber("page", 500, limit="rows"),
        variants=({"transactionType": "0"}, {"transactionType": "1"}),
        id="'payment:' || row.orderNo",
        type="'payment ' || coalesce(row.paymentMethod, '')",
        status="CASE row.status WHEN 'Processing' THEN 'pending' ELSE row.status END",
        settled="Completed",
        kind_by="CASE WHEN row.paymentMethod = 'Cash Balance' THEN 'trade' "
        "WHEN params->>'$.transactionType' = '1' THEN 'withdrawal' ELSE 'deposit' END",
        kinds={kind: kind for kind in ("trade", "deposit", "withdrawal")},
        trade="orderNo",
        legs=(
            Leg("crypto", "cryptoCurrency", "obtainAmount", "params->>'$.transactionType' = '1'"),
            Leg(
                "fiat",
                "CASE row.paymentMethod WHEN 'Cash Balance' THEN row.fiatCurrency END",
                "sourceAmount", "params->>'$.transactionType' = '0'",
            ),
        ),
        known="totalFee price updateTime",
    ),
    _list(
        "sapiGetAssetTransfer", "/sapi/v1/asset/transfer", "timestamp", 30,
        rows="rows",
        depth=timedelta(days=180),
        paging=PageNumber("current", 100, limit="size"),
        variants=tuple(
            {"type": way}
            for type_ in TRANSFERS
            for way in (type_, "_".join(reversed(type_.split("_"))))
        ),
        id="'transfer:' || row.tranId",
        type="type",
        status="CASE row.status WHEN 'PENDING' THEN 'pending' ELSE row.status END",
        settled="CONFIRMED",
        trade="tranId",
        known="fromSymbol toSymbol",
        legs=tuple(
            Leg(
                name,
                f"CASE WHEN {place} IN ('MAIN', 'FUNDING') THEN row.asset END",
                "amount", out,
                f"CASE {place} WHEN 'FUNDING' THEN 'funding' ELSE 'spot' END", "transfer",
            )
            for name, place, out in (
                ("from", "split_part(row.type, '_', 1)", "true"),
                ("to", "split_part(row.type, '_', 2)", "false"),
            )
        ),
    ),
)  # fmt: skip

ACCOUNT = Balances(
    call="privateGetAccount",
    endpoint="/api/v3/account",
    rows="balances",
    params={"omitZeroBalances": "true"},
    asset="asset",
    amount=("free", "locked"),
    there="row.asset = 'LDO' OR NOT starts_with(row.asset, 'LD')",
)
FUNDING = Balances(
    call="sapiPostAssetGetFundingAsset",
    endpoint="/sapi/v1/asset/get-funding-asset",
    wallet="'funding'",
    asset="asset",
    amount=("free", "locked", "freeze", "withdrawing"),
)


def _position(name: str, amount: str) -> Balances:
    return Balances(
        call=f"sapiGetSimpleEarn{name}Position",
        endpoint=f"{EARN}{name.lower()}/position",
        rows="rows",
        paging=PageNumber("current", 100, limit="size"),
        wallet="'earn'",
        asset="asset",
        amount=amount,
    )


BINANCE = Exchange(
    name="binance",
    title="Binance",
    documentation="https://developers.binance.com/docs/binance-spot-api-docs/rest-api",
    host="https://api.binance.com",
    ccxt="binance",
    secret="secret key",
    permission="Enable Reading",
    depth="trades of markets that are listed still; transfers of the last 6 months",
    reconcilable=False,
    why="Binance has no ledger, and some products no list: margin, futures, pay, C2C, staking",
    # 6000 of weight a minute over /api/v3, where each of our calls weighs 20; a part is left to
    # whatever else uses the address. Under /sapi every endpoint has a limit of its own.
    rates={
        "/api/v3/": Rate(250, 60, burst=10),
        "/sapi/v1/": Rate(10, 1),
        EARN: Rate(75, 60),
        "/sapi/v1/convert/tradeFlow": Rate(55, 60),
        "/sapi/v1/capital/withdraw/history": Rate(10, 60),
        "/sapi/v1/fiat/orders": Rate(2, 60),
    },
    ledgers=(TRADES, *LISTS),
    fills=(FILLS,),
    balances=(
        ACCOUNT,
        FUNDING,
        _position("Flexible", "totalAmount"),
        _position("Locked", "amount"),
    ),
)
