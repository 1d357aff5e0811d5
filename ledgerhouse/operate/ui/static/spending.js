// Calls and units per day and source, against what is allowed.
import { ask, card, count, h, nothing, saved, segments, select } from "./dom.js";
import { bars, drawing } from "./charts.js";

const DAY = 86400000;

export function spending() {
  const place = h("div.lh-chart"), caption = h("div.lh-caption");
  const { element, tools } = card("Units and calls", "Spent per day, UTC.", place, caption);
  const chart = drawing(place);
  let days = 30, measure, source, month = [];

  async function load(overview) {
    month = overview?.month ?? month;
    const answer = await ask("spending", { days });
    if (!answer.sources.length) {
      place.replaceChildren(nothing("Nothing has been called yet."));
      return;
    }
    const isPaid = (s) => s.days.some(([, , units]) => units)
      || s.budget.units.day || s.budget.units.month;
    source ??= (answer.sources.find(isPaid) ?? answer.sources[0]).source;
    const mine = answer.sources.find((s) => s.source === source) ?? answer.sources[0];
    const paid = isPaid(mine);
    measure = paid ? measure ?? "units" : "calls";
    tools.replaceChildren(
      answer.sources.length > 1 ? select("Source",
        answer.sources.map((s) => [s.source, s.source]), source,
        (value) => { source = value; measure = undefined; load(); }) : "",
      paid ? segments("Measure", [["units", "units"], ["calls", "calls"]], measure,
        (value) => { measure = value; load(); }) : "",
      segments("Days", [[30, "30 d"], [90, "90 d"], [365, "1 y"]], days,
        (value) => { days = value; load(); }));
    const known = new Map(mine.days.map(([date, calls, units]) =>
      [date, measure === "units" ? units : calls]));
    const values = [];
    for (let t = Date.parse(answer.first); t <= Date.parse(answer.last); t += DAY) {
      const date = new Date(t).toISOString().slice(0, 10);
      values.push([date, known.get(date) ?? 0]);
    }
    const { day, month: monthly } = mine.budget[measure];
    caption.replaceChildren(...captionOf(month.find((m) => m.source === source), measure, day, monthly));
    await chart.show(bars(values, measure, day));
  }
  return { element, load, stop: chart.stop };
}

function captionOf(month, measure, day, monthly) {
  if (!month) return [h("span", {}, "Nothing spent this month.")];
  const spent = month[measure], less = saved(month.ours[measure], month.full[measure]);
  return [
    h("span", {}, h("b", {}, count(spent)), ` ${measure} this month`,
      monthly ? ` of ${count(monthly)}` : ""),
    monthly ? meter(spent, monthly) : "",
    day ? h("span.lh-budget", {}, h("i"), `budget ${count(day)} a day`) : "",
    !day && !monthly ? h("span", {}, "no budget set") : "",
    less ? h("span", { title: "against a full refresh at the same cadence" },
      h("b", {}, less), " saved") : "",
  ];
}

/** How much of a budget is used. */
export function meter(spent, allowed) {
  const share = Math.min(100, (100 * spent) / allowed);
  const bar = h(`i${share >= 100 ? ".bad" : share >= 80 ? ".warn" : ""}`);
  bar.style.width = `${share}%`;
  return h("span.lh-meter", { role: "meter", "aria-valuenow": Math.round(share), "aria-valuemin": 0,
    "aria-valuemax": 100, "aria-label": "part of the budget used" }, bar);
}
