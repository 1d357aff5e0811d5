// The last checkpoint of every table, with its page in Data Docs.
import { address, ago, card, count, h, nothing } from "./dom.js";

export function checkpoints() {
  const body = h("div.lh-scroll");
  const { element, tools } = card("Checkpoints", "The last checks of every table.", body);

  function load({ checkpoints: rows, now }) {
    const documented = rows.some((c) => c.docs);
    tools.replaceChildren(documented ? h("a", { href: address("docs/index.html"), target: "_blank",
      rel: "noopener" }, "All Data Docs ↗") : "");
    if (!rows.length) {
      body.replaceChildren(nothing("No table has been checked yet."));
      return;
    }
    body.replaceChildren(h("table.lh-table", {}, h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "table"), h("th.num", { scope: "col" }, "passed"),
      h("th", { scope: "col" }, "failed"), h("th.num", { scope: "col" }, "checked"))),
    h("tbody", {}, rows.map((c) => line(c, now)))));
  }
  return { element, load };
}

function line(c, now) {
  const state = c.critical ? "bad" : c.warning ? "warn" : "good";
  const chips = [["critical", "failed"], ["warning", "gap"], ["info", "partly"]]
    .filter(([name]) => c[name]).map(([name, look]) =>
      h(`span.lh-chip.${look}`, { title: c.failed.join("\n") }, `${c[name]} ${name}`));
  return h("tr", {},
    h("td", {}, h(`i.lh-dot.${state}`), c.docs
      ? h("a", { href: address(`docs/${c.docs}`), target: "_blank", rel: "noopener",
        title: "in Data Docs" }, c.checkpoint) : c.checkpoint),
    h("td.num", {}, count(c.passed)),
    h("td", {}, chips.length ? chips : h("span.lh-muted", {}, "none")),
    h("td.num.lh-muted", { title: `${c.at.slice(0, 19)}Z, run ${c.run}` }, ago(c.at, now)));
}
