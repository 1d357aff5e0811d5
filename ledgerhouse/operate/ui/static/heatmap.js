// Coverage: a calendar per account, days × weeks, and the list of the gaps.
import { airflow, ask, card, count, h, moment, nothing, segments, short, svg } from "./dom.js";

const CELL = 11, STEP = 14, LEFT = 30, TOP = 18, DAY = 86400000;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const STATES = {
  covered: "covered", partly: "partly covered", gap: "gap", failed: "failed run",
  none: "not asked",
};
const FIRST_ACCOUNTS = 8; // the rest on request: a calendar is 371 elements
const FIRST_GAPS = 10;

export function coverage(tip) {
  const legend = h("div.lh-legend", {}, Object.entries(STATES).map(([state, text]) =>
    h("span", {}, h(`i.${state}`), text)),
  h("span", {}, h("i.covered.healed"), "failed, since read"));
  const body = h("div.lh-calendars"), gaps = h("div.lh-gaps");
  const { element, tools } = card("Coverage",
    "What has been read whole, UTC days. A gap is unread time before something that was read.",
    body, legend, gaps);
  let year, all = false;

  async function load() {
    const answer = await ask("coverage", { year });
    tools.replaceChildren(answer.years.length > 1 ? segments("Year", [["", "53 weeks"],
      ...answer.years.slice(-4).reverse().map((y) => [y, String(y)])], year ?? "",
    (value) => { year = value || undefined; load(); }) : "");
    const hidden = answer.accounts.length - FIRST_ACCOUNTS;
    body.replaceChildren(...answer.accounts.slice(0, all ? undefined : FIRST_ACCOUNTS)
      .map((account) => calendar(account, answer, tip)));
    if (!answer.accounts.length) body.append(nothing("No account has been read yet."));
    if (hidden > 0 && !all) body.append(h("button.lh-more", { type: "button", onclick: () => {
      all = true; load();
    } }, `Show ${hidden} more accounts`));
    gaps.replaceChildren(gapList(answer));
  }
  return { element, load };
}

function calendar(account, answer, tip) {
  const first = Date.parse(answer.first), last = Date.parse(answer.last);
  const shift = (new Date(first).getUTCDay() + 6) % 7; // Monday is the first row
  const weeks = Math.floor(((last - first) / DAY + shift) / 7) + 1;
  const days = new Map(account.days.map(([date, state, share, note]) =>
    [date, { state, share, note: answer.notes[note] ?? {} }]));
  const tally = {}, cells = [], months = [];
  for (let t = first, n = shift; t <= last; t += DAY, n += 1) {
    const date = new Date(t).toISOString().slice(0, 10);
    const { state, share, note } = days.get(date) ?? { state: "none", share: 0, note: {} };
    tally[state] = (tally[state] ?? 0) + 1;
    const x = LEFT + Math.floor(n / 7) * STEP, y = TOP + (n % 7) * STEP;
    const healed = state === "covered" && note.failed ? ".healed" : "";
    cells.push(svg(`rect.lh-day.${state}${healed}`, { x, y, width: CELL, height: CELL, rx: 2.5,
      "data-date": date, "data-share": share }));
    if (date.endsWith("-01")) {
      months.push(svg("text", { x, y: 10 }, MONTHS[Number(date.slice(5, 7)) - 1]));
    }
  }
  const names = ["Mon", "Wed", "Fri"].map((day, i) =>
    svg("text", { x: 0, y: TOP + i * 2 * STEP + 9 }, day));
  const summary = ["covered", "partly", "gap", "failed"].filter((s) => tally[s])
    .map((s) => `${tally[s]} ${tally[s] === 1 ? "day" : "days"} ${STATES[s]}`).join(", ");
  const picture = svg("svg", { viewBox: `0 0 ${LEFT + weeks * STEP} ${TOP + 7 * STEP - 3}`,
    role: "img", "aria-label": `${account.source} ${account.account}: ${summary || "nothing read"}` },
  ...months, ...names, ...cells);
  tip.on(picture, (target) => {
    const date = target.dataset.date;
    return date && explain(date, days.get(date));
  });
  const bad = ["failed", "gap"].filter((s) => tally[s]);
  return h("figure.lh-calendar", {},
    h("figcaption", {}, h("strong", {}, account.source), " ",
      h("span", { title: account.account }, short(account.account)),
      ...bad.map((s) => h(`span.lh-chip.${s}`, {},
        `${STATES[s]} on ${count(tally[s])} ${tally[s] === 1 ? "day" : "days"}`)),
      h("span.lh-right", {}, account.until ? `through ${moment(account.until)}` : "never read")),
    h("div.lh-scroll", {}, picture));
}

function explain(date, day) {
  const weekday = new Date(date).toLocaleDateString("en-US", { weekday: "short", timeZone: "UTC" });
  const { state, share, note } = day ?? { state: "none", share: 0, note: {} };
  const part = state === "covered" ? "" : share ? `, ${(share / 10).toFixed(1)} % of the day` : "";
  return [h("strong", {}, `${weekday} ${date}`),
    h(`div.lh-state.${state}`, {}, STATES[state] + part),
    note.gap && row("missing", note.gap),
    note.failed && row(state === "covered" ? "failed before" : "failed run", note.failed),
    note.failed && note.error && row("because", note.error),
    note.reason && row("paging ended", note.reason),
    note.reached && row("read up to", moment(note.reached)), note.run && row("read by", note.run)];
}

const row = (name, text) => h("div.lh-row", {}, h("span", {}, name), h("span", {}, text));

function gapList(answer) {
  if (!answer.gaps.length) return h("p.lh-fine", {}, h("i.lh-dot.good"), "No gaps.");
  const line = (gap) => h("tr", {},
    h("td", {}, h("i.lh-dot.bad")),
    h("td", {}, h("strong", {}, gap.source), " ",
      h("span", { title: gap.account }, short(gap.account))),
    h("td.lh-datasets", {}, gap.datasets),
    h("td.lh-time", {}, `${moment(gap.start)} – ${moment(gap.end)}`),
    h("td.num", {}, length(gap)),
    h("td.lh-run", { title: gap.failed_run ?? "" },
      gap.failed_run ? ["failed: ", gap.failed_run] : "not read yet"));
  const list = h("tbody", {}, answer.gaps.slice(0, FIRST_GAPS).map(line));
  const rest = answer.gaps.length - FIRST_GAPS;
  const more = rest > 0 && h("button.lh-more", { type: "button", onclick: () => {
    list.append(...answer.gaps.slice(FIRST_GAPS).map(line)); more.remove();
  } }, `Show ${rest} more`);
  const capped = answer.gaps_total > answer.gaps.length
    && `The newest ${count(answer.gaps.length)} of ${count(answer.gaps_total)} are listed. `;
  return h("div", {},
    h("h3", {}, `${count(answer.gaps_total)} ${answer.gaps_total === 1 ? "gap" : "gaps"}`),
    h("div.lh-scroll", {}, h("table.lh-table", {}, h("thead", {}, h("tr", {}, [
      ["", ""], ["account", ""], ["datasets", ".lh-datasets"], ["from – to, UTC", ""],
      ["length", ".num"], ["run", ""]].map(([name, look]) =>
      h(`th${look}`, { scope: "col" }, name)))), list)),
    more, h("p.lh-hint", {}, capped, "A sync closes the gaps it finds; ",
      h("a", { href: airflow("dags/history") }, "history"), " reads a range now."));
}

function length({ start, end }) {
  const hours = (Date.parse(end) - Date.parse(start)) / 3600000;
  return hours < 48 ? `${Number(hours.toFixed(1))} h` : `${Number((hours / 24).toFixed(1))} days`;
}
