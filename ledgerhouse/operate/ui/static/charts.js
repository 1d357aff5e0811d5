// Chart.js in the page's colours: units and calls per day, and a balance over time.
// Floating point places pixels only; what is read is the text of the books.
import { count } from "./dom.js";

let loading;

/** Chart.js with its time axis, from vendor/; loaded once. The axis looks for the global Chart. */
function library() {
  loading ??= import("./vendor/chart.umd.min.js")
    .then(() => import("./vendor/chartjs-adapter-date-fns.bundle.min.js"))
    .then(() => globalThis.Chart);
  return loading;
}

const colour = (element, name) => getComputedStyle(element).getPropertyValue(`--lh-${name}`).trim();

/** A chart in `place` that is drawn again when the theme changes; `make(colour)` its settings. */
export function drawing(place) {
  let chart, make;
  const draw = async () => {
    const Chart = await library();
    chart?.destroy();
    chart = undefined;
    if (!make || !place.isConnected) return;
    const canvas = document.createElement("canvas");
    place.replaceChildren(canvas);
    Chart.defaults.font.family = getComputedStyle(place).fontFamily;
    chart = new Chart(canvas, make((name) => colour(place, name)));
  };
  const watcher = new MutationObserver(draw);
  watcher.observe(document.documentElement, { attributeFilter: ["class", "data-theme"] });
  return {
    show: (settings) => { make = settings; return draw(); },
    stop: () => { watcher.disconnect(); chart?.destroy(); },
  };
}

const grid = (c) => ({ color: c("line"), drawTicks: false });

const tooltip = (c) => ({
  backgroundColor: c("tip"), titleColor: c("tip-text"), bodyColor: c("tip-text"), padding: 10,
  cornerRadius: 6, displayColors: false, titleFont: { weight: "600" }, boxPadding: 4,
});

/** A bar a day of `values` [[date, number]], and the budget of a day as a dashed line. */
export function bars(values, name, budget) {
  const highest = Math.max(1, ...values.map(([, value]) => value));
  // A budget far above what is spent would flatten the bars: the caption tells it.
  const line = budget && budget <= 5 * highest;
  return (c) => ({
    data: {
      labels: values.map(([date]) => date),
      datasets: [{
        type: "bar", data: values.map(([, value]) => value), borderRadius: 2, maxBarThickness: 22,
        backgroundColor: values.map(([, value]) =>
          (budget && value > budget ? c("bad") : c("accent"))),
      }, ...(line ? [{
        type: "line", data: values.map(() => budget), borderColor: c("warn"), borderDash: [5, 4],
        borderWidth: 1.5, pointRadius: 0, pointHitRadius: 0,
      }] : [])],
    },
    options: {
      animation: false, maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: {
        legend: { display: false },
        tooltip: { ...tooltip(c), filter: (item) => item.datasetIndex === 0, callbacks: {
          label: (item) => `${count(item.raw)} ${name}`
            + (budget ? ` of ${count(budget)} a day` : ""),
        } },
      },
      scales: {
        x: { grid: { display: false }, border: { color: c("line") },
          ticks: { color: c("muted"), maxRotation: 0, autoSkipPadding: 24,
            callback(value) { return this.getLabelForValue(value).slice(5); } } },
        y: { beginAtZero: true, suggestedMax: line ? budget * 1.1 : undefined, grid: grid(c),
          border: { display: false },
          ticks: { color: c("muted"), precision: 0, maxTicksLimit: 5, callback: (v) => count(v) } },
      },
    },
  });
}

/** A step line of `points` [[date, exact text]]; the value of a day holds to the next point. */
export function steps(points, symbol) {
  return (c) => ({
    type: "line",
    data: { datasets: [{
      data: points.map(([date, text]) => ({ x: date, y: Number(text), text })), stepped: "before",
      borderColor: c("accent"), borderWidth: 1.75, pointRadius: 0, pointHoverRadius: 4,
      pointHoverBackgroundColor: c("accent"), fill: "origin", backgroundColor: c("accent-soft"),
    }] },
    options: {
      animation: false, maintainAspectRatio: false,
      interaction: { mode: "index", axis: "x", intersect: false },
      plugins: {
        legend: { display: false },
        tooltip: { ...tooltip(c), callbacks: {
          title: ([item]) => item.raw.x, label: (item) => `${item.raw.text} ${symbol}`,
        } },
      },
      scales: {
        x: { type: "time",
          time: { minUnit: "day",
            displayFormats: { day: "MMM d", week: "MMM d", month: "MMM yyyy" } },
          grid: { display: false }, border: { color: c("line") },
          ticks: { color: c("muted"), maxRotation: 0, autoSkipPadding: 32 } },
        y: { grid: grid(c), border: { display: false }, grace: "8%",
          ticks: { color: c("muted"), maxTicksLimit: 5, padding: 6 } },
      },
    },
  });
}
