# %% [markdown]
# # Balances over time, and flows per month
#
# Reads the published books, checks its own figures against SQL, and writes three pictures:
#
#     .venv/bin/python docs/examples/balances_and_flows.py [FOLDER]
#
# The cells (`# %%`) also run one by one in VS Code, Spyder or Jupyter (with jupytext).

# %%
from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")  # pictures go to files; remove this line to see them in a notebook
import matplotlib.pyplot as plt

from ledgerhouse import frame

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
BLUE, ORANGE, GREY = "#2a6fbb", "#d9822b", "#6b7280"
plt.rcParams.update(
    {
        "figure.dpi": 110,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e5e7eb",
        "axes.axisbelow": True,
        "axes.edgecolor": GREY,
    }
)

# %% [markdown]
# ## What the exchange accounts held
#
# `balance` is a column of `decimal.Decimal`: exact. To draw, convert what is drawn, at the end.

# %%
balances = frame("""
    SELECT b.date, a.symbol, sum(b.balance) AS balance
    FROM curated.daily_balances b JOIN curated.assets a USING (token)
    WHERE b.domain = 'exchange'
    GROUP BY b.date, a.symbol ORDER BY b.date, a.symbol""")
if balances.empty:
    raise SystemExit("the books hold no account of an exchange yet")
held = balances.pivot(index="date", columns="symbol", values="balance")


def draw_balances(held: pd.DataFrame):
    """A small picture for each asset: amounts of different assets have no common scale."""
    rows = -(-held.shape[1] // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(10, 1.9 * rows), sharex=True, squeeze=False)
    for axis, symbol in zip(axes.flat, held.columns):
        drawn = held[symbol].dropna().astype(float)  # to draw, and only that
        axis.fill_between(drawn.index, drawn, step="post", color=BLUE, alpha=0.15, linewidth=0)
        axis.step(drawn.index, drawn, where="post", color=BLUE, linewidth=1.3)
        last = held[symbol].dropna().iloc[-1]
        axis.set_title(f"{symbol}   {last:,.4f}", loc="left", fontsize=10, fontweight="bold")
        axis.set_ylim(bottom=min(0, drawn.min()))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    for axis in axes.flat[held.shape[1] :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.xaxis.set_major_locator(matplotlib.dates.AutoDateLocator(maxticks=7))
        axis.xaxis.set_major_formatter(
            matplotlib.dates.ConciseDateFormatter(axis.xaxis.get_major_locator())
        )
    figure.suptitle(
        "Held on the exchange, at the end of each UTC day, in units of the asset",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    figure.tight_layout()
    return figure


# %% [markdown]
# ## What came and went per month
#
# The sums are made from the exact column first; only their result is converted.

# %%
SYMBOL = "USD"
flows = frame(
    """
    SELECT f.date, f.inflow, f.outflow
    FROM curated.daily_flows f JOIN curated.assets a USING (token)
    WHERE f.domain = 'exchange' AND a.symbol = ?
    ORDER BY f.date""",
    [SYMBOL],
)
month = flows["date"].dt.to_period("M")
monthly = flows.groupby(month)[["inflow", "outflow"]].sum()


def draw_flows(monthly: pd.DataFrame, symbol: str):
    """Inflow up, outflow down, the difference as a line."""
    figure, axis = plt.subplots(figsize=(10, 4))
    at, months = range(len(monthly)), [str(m) for m in monthly.index]
    axis.bar(at, monthly["inflow"].astype(float), color=BLUE, width=0.75, label="in")
    axis.bar(at, -monthly["outflow"].astype(float), color=ORANGE, width=0.75, label="out")
    axis.plot(
        at,
        (monthly["inflow"] - monthly["outflow"]).astype(float),
        color="black",
        marker="o",
        markersize=3.5,
        linewidth=1.2,
        label="net",
    )
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.grid(axis="x", visible=False)
    every = -(-len(monthly) // 12) or 1
    axis.set_xticks(list(at)[::every], months[::every], rotation=30, ha="right")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_title(f"{symbol} on the exchange: in and out per month", loc="left", fontsize=11)
    axis.legend(frameon=False, ncols=3, loc="upper right", bbox_to_anchor=(1, 1.12))
    figure.tight_layout()
    return figure


# %% [markdown]
# ## How much moves, and where
#
# Movements per month and source: counts, so nothing to convert.

# %%
counts = frame("SELECT ts, source, kind FROM curated.tx_unified WHERE counts")
per_month = (
    counts.groupby([counts["ts"].dt.tz_localize(None).dt.to_period("M"), "source"])
    .size()
    .unstack(fill_value=0)
)


def draw_counts(per_month: pd.DataFrame):
    """Stacked bars, a colour for each source."""
    figure, axis = plt.subplots(figsize=(10, 3.4))
    at, below = range(len(per_month)), [0] * len(per_month)
    palette = [BLUE, ORANGE, "#4b9b6e", "#8b6fc0"]
    for number, source in enumerate(per_month.columns):
        axis.bar(
            at,
            per_month[source],
            bottom=below,
            width=0.75,
            label=source,
            color=palette[number % len(palette)],
        )
        below = [low + more for low, more in zip(below, per_month[source])]
    axis.grid(axis="x", visible=False)
    every = -(-len(per_month) // 12) or 1
    axis.set_xticks(
        list(at)[::every], [str(m) for m in per_month.index][::every], rotation=30, ha="right"
    )
    axis.set_title("Movements per month that count", loc="left", fontsize=11)
    axis.legend(
        frameon=False, ncols=len(per_month.columns), loc="upper right", bbox_to_anchor=(1, 1.14)
    )
    figure.tight_layout()
    return figure


# %% [markdown]
# ## The same figures by SQL
#
# pandas and DuckDB must agree to the last digit.

# %%
by_sql = frame(
    """
    SELECT date_trunc('month', f.date) AS month, sum(inflow) AS inflow, sum(outflow) AS outflow
    FROM curated.daily_flows f JOIN curated.assets a USING (token)
    WHERE f.domain = 'exchange' AND a.symbol = ? GROUP BY 1 ORDER BY 1""",
    [SYMBOL],
)
assert list(by_sql["inflow"]) == list(monthly["inflow"]), "inflow differs from SQL"
assert list(by_sql["outflow"]) == list(monthly["outflow"]), "outflow differs from SQL"

# %%
FOLDER.mkdir(parents=True, exist_ok=True)
for name, figure in (
    ("balances", draw_balances(held)),
    ("flows", draw_flows(monthly, SYMBOL)),
    ("movements", draw_counts(per_month)),
):
    figure.savefig(FOLDER / f"{name}.png")
    plt.close(figure)
print(
    f"{len(held)} days of {held.shape[1]} assets, {len(monthly)} months of flows, "
    f"{len(counts):,} movements; pictures in {FOLDER}"
)
