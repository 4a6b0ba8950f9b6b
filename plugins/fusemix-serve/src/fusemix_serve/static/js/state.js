// What the page shows, as one frozen object that is kept in the address: a link shows the same page.

/** A page without a query. */
export const EMPTY = Object.freeze({
  text: "",       // the words in the bar
  typed: "",      // the modality of the words; "" is the first that takes words
  queries: [],    // other parts: {modality, text} | {modality, upload, name} | {key}; each has `weight`
  minus: [],      // keys of excluded items
  to: "",         // the modality to find; "" is all
  facets: {},     // column → {values: [...]} | {from, to}
  where: "",      // an expression over the columns
  min: 0,         // the least percentile
  fold: true,     // near-duplicates are shown once
  within: null,   // corners of an area of the map
  map: false,
  colour: "modality",
  saved: "",      // the collection that is shown in place of results
  open: "",       // the key of the item in the dialog
});

const number = (text, otherwise) => (text !== null && text !== "" && Number.isFinite(Number(text)) ? Number(text) : otherwise);

function weighted(value) {
  const found = /^(\d*\.?\d+)\*([^]*)$/.exec(value);
  return found ? [Number(found[1]), found[2]] : [1, value];
}

function part(name, value) {
  const [weight, rest] = weighted(value);
  if (name === "like") return { key: rest, weight };
  const [kind, modality] = [name.slice(0, name.indexOf(".")), name.slice(name.indexOf(".") + 1)];
  if (kind === "q") return { modality, text: rest, weight };
  const [upload, ...named] = rest.split("~");
  return { modality, upload, name: named.join("~"), weight };
}

function corners(text) {
  const values = text.split(",").map(Number);
  if (values.length < 6 || values.length % 2 || !values.every(Number.isFinite)) return null;
  return Array.from({ length: values.length / 2 }, (_, i) => [values[2 * i], values[2 * i + 1]]);
}

/** The state that an address asks for; whatever it can't read is left out. */
export function read(address) {
  const values = new URLSearchParams(address), facets = {};
  const state = { ...EMPTY, queries: [], minus: values.getAll("minus"), facets };
  for (const name of ["text", "typed", "to", "where", "colour", "saved", "open"]) {
    state[name] = values.get(name) ?? EMPTY[name];
  }
  for (const [name, value] of values) {
    if (name === "like" || /^(q|file)\../.test(name)) state.queries.push(part(name, value));
    const found = /^(is|from|upto)\.(.+)$/s.exec(name);
    if (found?.[1] === "is") (facets[found[2]] ??= { values: [] }).values?.push(value);
    else if (found) {
      const limit = number(value, undefined);
      if (limit !== undefined) (facets[found[2]] ??= {})[found[1] === "from" ? "from" : "to"] = limit;
    }
  }
  state.min = Math.min(100, Math.max(0, number(values.get("min"), 0)));
  state.fold = values.get("fold") !== "0";
  state.map = values.get("map") === "1";
  state.within = corners(values.get("within") ?? "");
  return Object.freeze(state);
}

/** The address of a state: "?…", or "" for an empty page. */
export function write(state) {
  const values = new URLSearchParams();
  for (const name of ["text", "typed", "to", "where", "colour", "saved", "open"]) {
    if (state[name] !== EMPTY[name]) values.set(name, state[name]);
  }
  for (const one of state.queries) {
    // A text that looks weighted is written with its weight, so that it's read back as it is.
    const mark = one.weight !== 1 || /^\d*\.?\d+\*/.test(one.text ?? "") ? `${one.weight}*` : "";
    if (one.key) values.append("like", `${mark}${one.key}`);
    else if (one.upload) values.append(`file.${one.modality}`, `${mark}${one.upload}~${one.name ?? ""}`);
    else values.append(`q.${one.modality}`, `${mark}${one.text}`);
  }
  for (const key of state.minus) values.append("minus", key);
  for (const [column, facet] of Object.entries(state.facets)) {
    for (const value of facet.values ?? []) values.append(`is.${column}`, value);
    if (facet.from !== undefined) values.set(`from.${column}`, facet.from);
    if (facet.to !== undefined) values.set(`upto.${column}`, facet.to);
  }
  if (state.min) values.set("min", state.min);
  if (!state.fold) values.set("fold", "0");
  if (state.map) values.set("map", "1");
  if (state.within) values.set("within", state.within.map((xy) => xy.map((v) => Number(v.toPrecision(5)))).join(","));
  const text = values.toString();
  return text ? `?${text}` : "";
}

/** Holds the state, keeps the address in step and calls whoever listens with (now, before). */
export class Store {
  constructor() {
    this.state = read(location.search);
    this.listeners = [];
    addEventListener("popstate", () => this.#become(read(location.search)));
  }

  listen(listener) {
    this.listeners.push(listener);
  }

  /** Changes some parts. `history` is "push" (Back undoes it) or "replace". */
  set(changes, history = "push") {
    const next = Object.freeze({ ...this.state, ...changes });
    const address = write(next);
    if (address !== location.search) globalThis.history[`${history}State`](null, "", address || location.pathname);
    this.#become(next);
  }

  #become(next) {
    const before = this.state;
    this.state = next;
    for (const listener of this.listeners) listener(next, before);
  }
}

/** Whether two states ask the server for the same results. */
export function sameSearch(a, b) {
  const asks = ({ map, colour, open, ...rest }) => JSON.stringify(rest);
  return asks(a) === asks(b);
}
