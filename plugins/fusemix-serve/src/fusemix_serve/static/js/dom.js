// Elements made from data. Strings become text nodes, never markup, so that a caption can't be code.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id. */
export const find = (id) => document.getElementById(id);

/** Makes an element: attributes, `onclick`-like listeners and `class`, then children (text or nodes). */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** One of the drawings at the top of index.html. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg"), use = document.createElementNS(SVG, "use");
  drawing.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  drawing.append(use);
  return drawing;
}

/** A button that shows a drawing and has `label` as its name. */
export function iconButton(name, label, onclick, attributes = {}) {
  return make("button", { type: "button", class: "icon", title: label, onclick, ...attributes },
    icon(name), make("span", { class: "hidden" }, label));
}

/** 1234567 → "1,234,567". */
export const count = (number) => number.toLocaleString("en-US");

/** "1 item", "2 items". */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A percentile as people read it: never a rounded 100. */
export function percent(value) {
  if (value > 99.9) return "> 99.9%";
  return `${value >= 99 ? value.toFixed(1) : Math.floor(value)}%`;
}

/** What an item is called in labels: its caption, else its name. */
export const title = (record) => record.text || record.item || record.key;

/** Waits until nothing has called it for `ms`. */
export function debounced(work, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), ms);
  };
}
