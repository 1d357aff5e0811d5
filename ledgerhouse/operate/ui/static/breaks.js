// Breaks: where a computed balance left the reported one, by how much, and the suspect.
import { ask, card, count, h, moment, nothing, plain, short } from "./dom.js";
import { chip } from "./balances.js";

export function breaks() {
  const body = h("div.lh-scroll");
  const { element } = card("Breaks", "Where the computed balance left the reported one: after the "
    + "last snapshot that agreed, by the first that did not.", body);

  async function load() {
    const { rows, total } = await ask("breaks");
    body.replaceChildren(rows.length ? table(rows)
      : nothing("No balance differs from what is reported."),
    total > rows.length ? h("p.lh-hint", {}, `The newest ${count(rows.length)} of ${count(total)}.`)
      : "");
  }
  return { element, load };
}

function table(rows) {
  return h("table.lh-table.lh-breaks", {}, h("thead", {}, h("tr", {},
    ["asset", "account", "status", "window (UTC)"].map((name) => h("th", { scope: "col" }, name)),
    ["step", "residual"].map((name) => h("th.num", { scope: "col" }, name)),
    h("th", { scope: "col" }, "suspect"), h("th.num", { scope: "col" }, "read again"))),
  h("tbody", {}, rows.map((row) => h("tr", {},
    h("td", { title: plain(row.token) }, h("strong", {}, short(plain(row.symbol), 24)),
      row.chain && h("span.lh-muted", {}, ` ${plain(row.chain)}`)),
    h("td", { title: row.account }, row.source, " ", h("span.lh-muted", {}, short(row.account))),
    h("td", {}, row.status ? chip(row) : ""),
    h("td", {}, row.after ? `${moment(row.after)} – ${moment(row.until)}`
      : `from the first, ${moment(row.until)}`),
    h("td.num", {}, row.step), h("td.num", {}, row.residual),
    h("td", { title: plain(row.explanation) }, row.suspect),
    h("td.num.lh-muted", {}, price(row))))));
}

function price({ calls, units }) {
  if (calls === null) return "";
  return `${count(calls)} ${calls === 1 ? "call" : "calls"}${units ? `, ${count(units)} units` : ""}`;
}
