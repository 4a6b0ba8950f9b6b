// Asks for what the state describes, and shows it: results, what is being waited for, what went wrong.

import { items, search } from "./api.js";
import { count, counted, find, make, percent } from "./dom.js";
import { EMPTY, sameSearch } from "./state.js";
import { expression, filtered } from "./where.js";

const PAGE = 48;
const SLOW = 250, VERY_SLOW = 5000;  // ms until the page says that it works, and that it may take a while

/** Whether the state asks anything; otherwise the page browses. */
export const asks = (state) => Boolean(state.text.trim() || state.queries.length || state.minus.length);

/** What POST /api/search takes for a state. */
export function body(state, info, offset) {
  const queries = state.queries.map(({ weight, name, ...query }) => query);
  const weights = state.queries.map((query) => query.weight);
  if (state.text.trim() && info.typed.length) {
    queries.unshift({ modality: state.typed || info.typed[0], text: state.text.trim() });
    weights.unshift(1);
  }
  const asked = { queries, weights, k: PAGE, offset, group_duplicates: state.fold };
  const where = expression(state, info.columns);
  if (where) asked.where = where;
  if (state.minus.length) asked.minus = state.minus;
  if (state.to) asked.to = state.to;
  if (state.min && asks(state)) asked.min_percentile = state.min;
  if (state.within) asked.within = state.within;
  if (state.map && !offset) asked.places = true;
  return asked;
}

export class Results {
  /** `grid` shows records; `shown(hits, state, places)` is called whenever they changed. `places`:
   *  those of all results on the map, null if these are not known. */
  constructor(store, info, grid, collections, shown) {
    Object.assign(this, { store, info, grid, collections, shown });
    this.hits = [];
    this.total = 0;
    this.run = 0;
    find("more").addEventListener("click", () => this.more());
    grid.reachesEnd = () => this.hits.length < this.total && this.more();
    store.listen((now, before) => {
      const opened = now.map && !before.map && (now.min || filtered(now));
      if (opened || !sameSearch(now, before)) this.load();
    });
  }

  /** Starts over with the present state. */
  load() {
    return this.#ask(0);
  }

  more() {
    if (!this.waiting) return this.#ask(this.hits.length);
    return undefined;
  }

  async #ask(offset) {
    this.abort?.abort(new DOMException("A newer search", "AbortError"));
    const { state } = this.store, mine = ++this.run;
    this.abort = new AbortController();
    this.#wait(true);
    try {
      const found = state.saved ? await this.#saved(state.saved)
        : await search(body(state, this.info, offset), this.abort.signal);
      if (mine !== this.run) return;
      this.hits = offset ? [...this.hits, ...found.hits] : found.hits;
      if (!offset) this.places = found.places ?? null;
      // A total may be an estimate. If no more come, all are there.
      this.total = found.hits.length ? Math.max(found.total, this.hits.length) : this.hits.length;
      this.#show(state, found, offset);
    } catch (error) {
      if (mine !== this.run) return;
      this.#failed(error);
    } finally {
      if (mine === this.run) this.#wait(false);
    }
  }

  async #saved(name) {
    const hits = await items(this.collections.keys(name));
    return { hits, total: hits.length, took_ms: null };
  }

  #wait(waiting) {
    this.waiting = waiting;
    clearTimeout(this.slow);
    clearTimeout(this.verySlow);
    find("results").setAttribute("aria-busy", String(waiting));
    if (!waiting) {
      find("busy").hidden = true;
      return;
    }
    this.slow = setTimeout(() => {
      find("busy").hidden = false;
      find("status").textContent = "Searching …";
    }, SLOW);
    this.verySlow = setTimeout(() => {
      find("status").textContent = "Still searching. The first search loads the model and may take some seconds.";
    }, VERY_SLOW);
  }

  #show(state, found, offset) {
    const none = this.hits.length === 0;
    this.grid.show(this.hits, offset);
    find("grid").hidden = none;
    find("more").hidden = this.hits.length >= this.total;
    find("export").hidden = none;
    find("message").hidden = !none;
    if (none) find("message").replaceChildren(...this.#nothing(state));
    find("status").replaceChildren(...this.#summary(state, found));
    this.shown(this.hits, state, this.places);
  }

  #summary(state, found) {
    const all = counted(this.total, asks(state) && !state.saved ? "result" : "item");
    const parts = state.saved ? [make("b", {}, state.saved), ` · ${all} `] : [make("b", {}, all)];
    if (state.saved) {
      parts.push(make("button", { type: "button", class: "link", onclick: () => this.store.set({ saved: "" }) },
        "Back to the search"));
    } else if (!asks(state)) {
      parts.push(filtered(state) ? " match the filters" : " to search");
    } else if (found.took_ms !== null) {
      parts.push(make("span", { class: "muted" }, ` · ${count(Math.round(found.took_ms))} ms`));
    }
    return parts;
  }

  /** Why nothing is there, with a way out. */
  #nothing(state) {
    const way = (label, changes) => make("button", { type: "button", onclick: () => this.store.set(changes) }, label);
    if (this.info.count === 0) {
      return [make("h2", {}, "This index is empty"), make("p", {}, "Add items to it with ",
        make("code", {}, "fusemix index update"), ", then reload this page.")];
    }
    if (state.saved) {
      return [make("h2", {}, "Nothing is saved here yet"),
        make("p", {}, "Press the star on a result, or ", make("kbd", {}, "s"), "."), way("Back to the search", { saved: "" })];
    }
    const ways = [];
    if (state.min && asks(state)) ways.push(way(`Show results below ${percent(state.min)}`, { min: 0 }));
    if (filtered(state)) ways.push(way("Clear the filters", { facets: {}, where: "", within: null }));
    if (state.to) ways.push(way("Find every kind", { to: "" }));
    return [make("h2", {}, "Nothing found"),
      make("p", {}, ways.length ? "No item passes all of your settings." : "No item matches this search."), ...ways];
  }

  #failed(error) {
    const parts = [make("h2", {}, error.message), error.hint ? make("p", {}, error.hint) : null];
    if (error.code === "upload_gone") {
      const queries = this.store.state.queries.filter((query) => !query.upload);
      parts.push(make("p", {}, "Drop the file once more, or search without it."),
        make("button", { type: "button", onclick: () => this.store.set({ queries }, "replace") }, "Search without the file"));
    } else if (error.retry) {
      parts.push(make("button", { type: "button", onclick: () => this.load() }, "Try again"));
    } else if (asks(this.store.state) || filtered(this.store.state)) {
      parts.push(make("button", { type: "button", onclick: () => this.store.set({ ...EMPTY }) }, "Start over"));
    }
    Object.assign(this, { hits: [], total: 0 });
    find("message").replaceChildren(...parts.filter(Boolean));
    find("message").hidden = false;
    for (const id of ["grid", "more", "export"]) find(id).hidden = true;
    find("status").textContent = error.message;
    this.shown([], this.store.state);
  }
}
