// Balances: one over time, and all of them computed against reported.
import { ask, card, count, h, moment, nothing, plain, segments, select, short } from "./dom.js";
import { drawing, steps } from "./charts.js";

const ROWS = 25, TYPED = 250; // rows a page; milliseconds after the last key
export const CHIPS = { off: "failed", settling: "gap", awaiting_coverage: "gap",
  not_reconcilable: "gap", explained: "partly", within_tolerance: "covered", exact: "covered",
  reconciled: "covered" };
export const named = (status) => plain(String(status ?? "unknown")).replaceAll("_", " ")
  .replaceAll("+", " and ");
export const chip = (row) => h(`span.lh-chip.${CHIPS[row.status] ?? "gap"}`, {
  title: [named(row.status), row.kind && named(row.kind), row.since && `since ${moment(row.since)} UTC`,
    row.value && `worth ${row.value}`, row.reason && plain(row.reason)].filter(Boolean).join("\n"),
}, row.kind ? `${named(row.status)}: ${named(row.kind)}` : named(row.status));
const key = (row) => [row.source, row.account, row.token].join("\n");
const owner = (row) => [row.source, row.account].join("\n");
const asset = (row) => plain(row.chain ? `${row.symbol} on ${row.chain}` : row.symbol);

export function balances() {
  const place = h("div.lh-chart.tall"), caption = h("div.lh-caption");
  const over = card("Balance over time",
    "Computed from the transactions alone; at the end of each UTC day.", place, caption);
  const chart = drawing(place);
  const table = reconciliation((row) => choose(row, true));
  let assets = [], chosen;

  async function load() {
    assets = (await ask("assets")).assets;
    await table.load();
    const wanted = chosen ?? table.first() ?? assets[0];
    if (wanted) await choose(wanted);
    else place.replaceChildren(nothing("Nothing has moved yet."));
  }

  async function choose(row, look) {
    chosen = row;
    table.mark(row);
    const owners = [...new Map(assets.map((a) => [owner(a), a])).values()];
    const mine = assets.filter((a) => owner(a) === owner(row));
    if (!mine.some((a) => key(a) === key(row))) mine.unshift(row);
    over.tools.replaceChildren(
      select("Account", owners.map((a) => [owner(a), `${a.source} ${short(a.account)}`]),
        owner(row), (value) => choose(assets.find((a) => owner(a) === value))),
      select("Asset", mine.map((a) => [key(a), short(asset(a), 40)]), key(row),
        (value) => choose(mine.find((a) => key(a) === value))));
    if (look) over.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
    const { source, account, token } = row;
    const answer = await ask("balances", { source, account, token });
    if (chosen !== row) return; // another was chosen meanwhile
    const points = answer.points.filter(([, text]) => text !== null);
    if (!points.length) {
      await chart.show(undefined);
      place.replaceChildren(nothing("No movement of this asset is known."));
      caption.replaceChildren();
      return;
    }
    const [day, text] = points.at(-1), { reported } = answer;
    caption.replaceChildren(
      h("span", {}, h("b.lh-amount", {}, text), ` ${short(asset(row), 40)} at the end of ${day}`),
      reported ? h("span", {}, "reported ", h("b.lh-amount", {}, reported.balance ?? "unknown"),
        ` at ${moment(reported.at)}`) : "",
      reported ? chip(reported) : "",
      answer.every > 1 ? h("span", {}, `a point every ${answer.every} days`) : "");
    await chart.show(steps(points, row.symbol));
  }
  return { elements: [over.element, table.element], load, stop: chart.stop };
}

function reconciliation(pick) {
  const body = h("div.lh-scroll"), pages = h("div.lh-pages");
  const { element, tools } = card("Computed against reported",
    "The newest snapshot the history reaches without a hole. What is off comes first; click a row "
    + "to see it over time.", body, pages);
  let search = "", status = "", offset = 0, timer, rows = [], marked, filters, asked = 0;

  async function load() {
    const mine = asked += 1;
    const answer = await ask("reconciliation", { search, status, limit: ROWS, offset });
    if (mine !== asked) return; // a later question is on its way
    rows = answer.rows;
    if (!filters) tools.replaceChildren(...(filters = make(answer.statuses)));
    body.replaceChildren(rows.length ? draw() : nothing(search || status
      ? "No balance fits the filter." : "No balance has been reported yet."));
    const last = offset + rows.length;
    pages.replaceChildren(...(answer.total ? [
      h("span", {}, `${count(offset + 1)}–${count(last)} of ${count(answer.total)}`),
      answer.total > ROWS ? h("button", { type: "button", disabled: offset === 0,
        onclick: () => { offset -= ROWS; load(); } }, "Previous") : "",
      answer.total > ROWS ? h("button", { type: "button", disabled: last >= answer.total,
        onclick: () => { offset += ROWS; load(); } }, "Next") : ""] : []));
  }

  function make(statuses) {
    const known = Object.keys(CHIPS).filter((s) => statuses[s]);
    return [
      known.length > 1 ? segments("Status", [["", "all"], ...known.map((s) =>
        [s, `${named(s)} ${count(statuses[s])}`])], status,
      (value) => { status = value; offset = 0; load(); }) : "",
      h("input", { type: "search", placeholder: "Asset or account", maxlength: 100,
        "aria-label": "Search asset or account", oninput: ({ target }) => {
          clearTimeout(timer);
          timer = setTimeout(() => { search = target.value.trim(); offset = 0; load(); }, TYPED);
        } })];
  }

  function draw() {
    const names = ["reported", "computed", "difference"];
    const table = h("table.lh-table.lh-ledger", {}, h("thead", {}, h("tr", {},
      ["status", "asset", "account"].map((name) =>
        h(name === "account" ? "th.lh-owner" : "th", { scope: "col" }, name)),
      names.map((name) => h("th.num", { scope: "col" }, name)))),
    h("tbody", {}, rows.map((row) => h("tr", {
      tabindex: 0, "data-key": key(row), "aria-selected": String(key(row) === marked),
      onclick: () => pick(row),
      onkeydown: (event) => { if (event.key === "Enter") pick(row); },
    },
    h("td.lh-status", {}, chip(row)),
    h("td", { title: plain(row.token) }, h("strong", {}, short(plain(row.symbol), 24)),
      row.chain && h("span.lh-muted", {}, ` ${plain(row.chain)}`),
      !row.verified && h("span.lh-muted", { title: "the source has not verified this token" },
        " unverified"),
      h("div.lh-under", { title: row.account }, `${row.source} ${short(row.account)}`)),
    h("td.lh-owner", { title: row.account },
      row.source, " ", h("span.lh-muted", {}, short(row.account))),
    names.map((name) => amount(row[name]))))));
    // Decimal points below each other: every fraction is as wide as the longest.
    names.forEach((name, i) => table.style.setProperty(`--lh-frac-${i}`,
      Math.max(0, ...rows.map((row) => (row[name]?.split(".")[1]?.length ?? -1) + 1))));
    return table;
  }

  function mark(row) {
    marked = key(row);
    for (const line of body.querySelectorAll("tbody tr")) {
      line.setAttribute("aria-selected", String(line.dataset.key === marked));
    }
  }
  return { element, load, mark, first: () => rows[0] };
}

function amount(text) {
  if (text === null) return h("td.num.lh-muted", { title: "does not fit 38 digits" }, "overflow");
  const point = text.indexOf(".") < 0 ? text.length : text.indexOf(".");
  return h(text === "0" ? "td.num.lh-zero" : "td.num", {}, text.slice(0, point),
    h("span.lh-frac", {}, text.slice(point)));
}
