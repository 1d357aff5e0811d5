// Elements, figures and questions. Text from the books reaches the page as text nodes only:
// anybody may mint a token that is called <script>.

const ROOT = new URL("../", import.meta.url);
const SVG = "http://www.w3.org/2000/svg";

/** h("td.num", {title}, "text", child): an element; listeners by `onclick`, nothing by HTML. */
export function h(name, props = {}, ...children) {
  return fill(document.createElement(name.split(".")[0]), name, props, children);
}

/** The same for SVG. */
export function svg(name, props = {}, ...children) {
  return fill(document.createElementNS(SVG, name.split(".")[0]), name, props, children);
}

function fill(element, name, props, children) {
  const classes = name.split(".").slice(1);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((c) => c !== undefined && c !== null && c !== false));
  return element;
}

/** The address of one of our own files or pages. */
export const address = (path) => new URL(path, ROOT).href;

/** The address of a page of Airflow, whose base is one level up. */
export const airflow = (path) => new URL(`../${path}`, ROOT).href;

/** The JSON answer of api/<path>; raises an Error whose message can be shown. */
export async function ask(path, params = {}) {
  const url = new URL(`api/${path}`, ROOT);
  for (const [key, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(key, value);
  }
  const answer = await fetch(url, { credentials: "same-origin" });
  if (answer.ok) return answer.json();
  if (answer.status === 401) throw new Error("Your session has ended. Reload the page to log in.");
  const body = await answer.json().catch(() => ({}));
  throw new Error(typeof body.detail === "string" ? body.detail
    : `The API server answered ${answer.status}; its log says why.`);
}

/** 1234567 → 1,234,567. */
export const count = (number) => Number(number).toLocaleString("en-US");

/** Text of strangers without the marks that turn the direction of what follows. */
export const plain = (text) =>
  text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "");

/** 0x7a3f0c…6cd1 for what is longer than a name. */
export const short = (text, keep = 14) =>
  text.length <= keep ? text : `${text.slice(0, keep - 5)}…${text.slice(-4)}`;

/** "2026-11-25T12:00:00Z" → "2026-11-25 12:00". */
export const moment = (iso) => (iso ? iso.slice(0, 16).replace("T", " ") : "never");

/** How long before `now` that was: "3 h ago". */
export function ago(iso, now) {
  const minutes = Math.max(0, Math.round((Date.parse(now) - Date.parse(iso)) / 60000));
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 48 * 60) return `${Math.round(minutes / 60)} h ago`;
  return `${Math.round(minutes / 1440)} days ago`;
}

/** How much less `ours` is than `full`, in percent with one digit; null without a comparison. */
export const saved = (ours, full) => (full ? `${(100 * (1 - ours / full)).toFixed(1)} %` : null);

/** A card with a title, what belongs to its right, and a body. */
export function card(title, hint, ...body) {
  const tools = h("div.lh-tools");
  const element = h("section.lh-card", { "aria-label": title },
    h("header", {}, h("div", {}, h("h2", {}, title), hint && h("p.lh-hint", {}, hint)), tools),
    ...body);
  return { element, tools };
}

/** Buttons of which one is chosen: options [[value, label]]; `choose(value)` on each click. */
export function segments(label, options, chosen, choose) {
  const buttons = options.map(([value, text]) => h("button", {
    type: "button", "aria-pressed": String(value === chosen), onclick: (event) => {
      buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === event.currentTarget)));
      choose(value);
    },
  }, text));
  return h("div.lh-segments", { role: "group", "aria-label": label }, buttons);
}

/** A select: options [[value, label, group]]; `choose(value)` on change. */
export function select(label, options, chosen, choose) {
  const groups = new Map();
  const element = h("select", { "aria-label": label, onchange: (e) => choose(e.target.value) });
  for (const [value, text, group] of options) {
    const option = h("option", { value, selected: value === chosen }, text);
    if (!group) { element.append(option); continue; }
    if (!groups.has(group)) groups.set(group, element.appendChild(h("optgroup", { label: group })));
    groups.get(group).append(option);
  }
  return element;
}

export const nothing = (text) => h("p.lh-nothing", {}, text);
