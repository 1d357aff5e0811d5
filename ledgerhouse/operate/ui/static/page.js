// The page: loads its parts, and loads them again when newer books are published.
import { address, ago, airflow, ask, count, h, moment, plain, saved } from "./dom.js";
import { coverage } from "./heatmap.js";
import { spending, meter } from "./spending.js";
import { checkpoints } from "./checkpoints.js";
import { balances, named } from "./balances.js";
import { breaks } from "./breaks.js";

const EVERY = 60000; // milliseconds between two looks whether the books are newer

/** Show the page in `place`; returns what takes it away again. */
export function mount(place) {
  const style = address("static/ledgerhouse.css");
  if (![...document.styleSheets].some((sheet) => sheet.href === style)) {
    document.head.append(h("link", { rel: "stylesheet", href: style }));
  }
  const page = h("div.ledgerhouse", { "aria-busy": "true" });
  const tip = tooltip(page);
  place.replaceChildren(page);
  let parts, generation, timer, gone = false;

  async function look() {
    try {
      const overview = await ask("overview");
      if (gone) return;
      if (overview.published) await show(overview);
      else { stop(); empty(page, overview); }
    } catch (error) {
      stop();
      if (!gone) failed(page, error, look);
    }
    page.setAttribute("aria-busy", "false");
    clearTimeout(timer);
    if (!gone) timer = setTimeout(() => (document.hidden ? later() : look()), EVERY);
  }

  function stop() {
    parts?.spending.stop();
    parts?.balances.stop();
    parts = generation = undefined;
  }

  function later() {
    document.addEventListener("visibilitychange", () => { if (!gone) look(); }, { once: true });
  }

  async function show(overview) {
    if (!parts) {
      parts = { head: h("div.lh-head"), coverage: coverage(tip), spending: spending(),
        checkpoints: checkpoints(), balances: balances(), breaks: breaks() };
      page.replaceChildren(parts.head, parts.coverage.element,
        h("div.lh-pair", {}, parts.spending.element, parts.checkpoints.element),
        ...parts.balances.elements, parts.breaks.element, tip.element);
    }
    parts.head.replaceChildren(...head(overview));
    parts.checkpoints.load(overview);
    if (generation === overview.published.generation) return;
    generation = overview.published.generation;
    await Promise.all([
      parts.coverage.load(), parts.spending.load(overview), parts.balances.load(),
      parts.breaks.load()]);
  }

  look();
  return () => {
    gone = true;
    clearTimeout(timer);
    stop();
    place.replaceChildren();
  };
}

function head(o) {
  const { published: p } = o;
  return [
    h("div.lh-title", {}, h("h1", {}, "Ledgerhouse"),
      h("p", { title: `generation ${p.generation}, run ${p.run}` }, "Books published ",
        h("b", {}, `${moment(p.at)} UTC`), `, ${ago(p.at, o.now)}`)),
    o.silent_hours !== null && silence(o),
    o.refused && refusal(o.refused, "What is shown here is from before it. "),
    o.held.length > 0 && heldBanner(o.held),
    ...incidents(o.incidents, o.now),
    h("div.lh-kpis", {}, tiles(o)),
  ].filter(Boolean);
}

function tiles(o) {
  const late = o.newest !== o.through;
  const units = o.month.filter((m) => m.units || m.allowed.units);
  const measure = units.length ? "units" : "calls";
  const counted = units.length ? units : o.month;
  const sum = (pick) => counted.reduce((total, m) => total + (pick(m) ?? 0), 0);
  const spent = sum((m) => m[measure]);
  const allowed = counted.length && counted.every((m) => m.allowed[measure] !== null)
    ? sum((m) => m.allowed[measure]) : 0;
  const less = saved(sum((m) => m.ours[measure]), sum((m) => m.full[measure]));
  const kinds = Object.entries(o.kinds).map(([kind, n]) => `${named(kind)} ${count(n)}`).join(", ");
  const others = Object.entries(o.statuses).filter(([status]) => !["exact", "reconciled"].includes(status))
    .map(([status, n]) => `${count(n)} ${named(status)}${status === "explained" && kinds
      ? ` (${kinds})` : ""}`).join(", ");
  const share = o.share === null ? "" : `${o.share} % of the value is exact or explained`;
  const open = o.balances - o.agreed;
  return [
    tile("covered through", moment(o.through), late ? `newest ${moment(o.newest)}`
      : `UTC, ${count(o.accounts.length)} ${o.accounts.length === 1 ? "account" : "accounts"}`,
    late && "warn"),
    tile("balances that agree", [count(o.agreed), h("small", {}, ` of ${count(o.balances)}`)],
      [share, others].filter(Boolean).join("; ")
        || (o.balances ? "every balance as reported" : "no balance reported yet"),
      o.off ? "bad" : open ? "warn" : o.balances && "good"),
    tile("gaps", count(o.gaps), [o.gaps && "in what has been read", o.unread
      && `${count(o.unread)} ${o.unread === 1 ? "wallet or chain" : "wallets or chains"} could not be read`]
      .filter(Boolean).join("; ") || "nothing is missing",
      o.gaps ? "bad" : o.unread ? "warn" : "good"),
    tile("pending rows", count(o.pending),
      o.pending ? "not final at the vendor yet" : "all rows are final"),
    tile(`${measure} this month`,
      [count(spent), allowed ? h("small", {}, ` of ${count(allowed)}`) : ""],
      allowed ? meter(spent, allowed) : "no budget set", allowed && spent > allowed && "bad"),
    tile("saved", less ?? "–",
      less ? "against a full refresh each sync" : "no sync to compare yet"),
  ];
}

const tile = (name, value, hint, state) => h(`div.lh-tile${state ? `.${state}` : ""}`, {},
  h("dt", {}, name), h("dd", {}, value), h("div.lh-sub", {}, hint));

function incidents({ open, total }, now) {
  if (!total) return [];
  const line = (i) => h("li", {},
    h(`span.lh-chip.${i.severity === "critical" ? "failed" : "gap"}`, {},
      i.kind.replaceAll("_", " ")),
    h("span", {}, i.text), h("span.lh-muted.lh-right", { title: moment(i.opened_at) },
      `since ${ago(i.opened_at, now).replace(" ago", "")}`));
  return [h("section.lh-banner.incidents", { "aria-label": "Open incidents" },
    h("h2", {}, `${count(total)} open ${total === 1 ? "incident" : "incidents"}`),
    h("ul", {}, open.map(line)),
    total > open.length ? h("p.lh-hint", {}, `The newest ${count(open.length)} are listed.`) : "")];
}

const silence = (o) => h("section.lh-banner.bad", { role: "alert" },
  h("h2", {}, o.newest ? `No sync has come: read through ${moment(o.newest)} UTC, ${ago(o.newest, o.now)}`
    : "Nothing was ever read"),
  h("p", {}, `${o.silent_hours} hours are allowed. See that Airflow's scheduler runs, and that the DAG `,
    h("a", { href: airflow("dags/sync") }, "sync"), " is not paused. No alert says so while the scheduler is down."));

const heldBanner = (held) => h("section.lh-banner.bad", { role: "alert" },
  h("h2", {}, `${count(held.length)} ${held.length === 1 ? "account keeps its" : "accounts keep their"}`
    + " last good days: critical checks failed on newer ones"),
  h("ul", {}, held.map((one) => h("li", {}, `${one.source} ${one.account}, since `
    + `${moment(one.since)} UTC: ${plain(one.reason)} (run ${one.run})`))));

const refusal = (r, meanwhile = "") => h("section.lh-banner.bad", { role: "alert" },
  h("h2", {}, "The newest run was not published: critical checks failed"),
  h("p", {}, `Run ${r.run}, checked ${moment(r.at)} UTC. ${meanwhile}`,
    h("a", { href: address(`docs/${r.docs}`), target: "_blank", rel: "noopener" },
      "See the checks ↗")),
  h("ul", {}, r.failed.map((line) => h("li", {}, line))));

function empty(page, { refused }) {
  const dag = (name) => h("a", { href: airflow(`dags/${name}`) }, name);
  page.replaceChildren(h("div.lh-empty", {}, h("h1", {}, "No books yet"),
    refused ? refusal(refused)
      : h("p", {}, "Books are published by the first run whose checks pass."),
    h("ol", {},
      h("li", {}, "List your accounts in accounts.toml, and put their keys into Airflow's ",
        "Connections."),
      h("li", {}, "Unpause ", dag("sync"), ": every six hours it reads what is missing since ",
        "START_TS."),
      h("li", {}, "For years of history trigger ", dag("history"), " with interval_start and ",
        "interval_end.")),
    h("p.lh-muted", {}, "This page looks again every minute.")));
}

function failed(page, error, again) {
  page.replaceChildren(h("div.lh-empty", { role: "alert" },
    h("h1", {}, "The books cannot be shown"), h("p", {}, error.message),
    h("button", { type: "button", onclick: again }, "Try again")));
}

/** What appears beside the pointer: `on(picture, text)`, text(element) gives its lines. */
function tooltip(page) {
  const element = h("div.lh-tip", { role: "tooltip", hidden: true });
  const hide = () => { element.hidden = true; };
  const on = (picture, text) => {
    picture.addEventListener("mouseover", ({ target }) => {
      const lines = text(target);
      if (!lines) { hide(); return; }
      element.replaceChildren(...lines.filter(Boolean));
      element.hidden = false;
      const cell = target.getBoundingClientRect(), box = element.getBoundingClientRect();
      const left = Math.min(Math.max(8, cell.left + cell.width / 2 - box.width / 2),
        document.documentElement.clientWidth - box.width - 8);
      const above = cell.top - box.height - 8;
      element.style.left = `${left}px`;
      element.style.top = `${above > 8 ? above : cell.bottom + 8}px`;
    });
    picture.addEventListener("mouseleave", hide);
  };
  page.addEventListener("scroll", hide, { passive: true });
  return { element, on };
}
