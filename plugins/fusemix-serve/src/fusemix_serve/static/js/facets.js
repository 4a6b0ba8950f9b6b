// Filters from the user's columns: values with how many items have them, limits of numbers, an expression.

import { facets } from "./api.js";
import { count, debounced, find, make } from "./dom.js";
import { expression, filtered } from "./where.js";

const FEW = 8;               // values shown at first
const OPEN = 4, SHORT = 12;  // the first groups are open, if they have few values

export class Facets {
  constructor(store, info) {
    Object.assign(this, { store, info });
    const columns = info.columns.filter((one) => one.kind === "number" || one.values?.length > 1);
    this.groups = columns.map((column, i) => this.#group(column, i < OPEN && (column.values ?? []).length <= SHORT));
    this.clear = make("button", {
      type: "button", class: "link", hidden: true,
      onclick: () => store.set({ facets: {}, where: "", within: null }),
    }, "Clear all");
    this.expression = this.#expression();
    find("filters").hidden = !info.columns.length;
    find("filters").append(make("div", { class: "line" }, make("h2", {}, "Filters"), this.clear),
      ...this.groups.map((group) => group.element), this.expression.element);
    store.listen((now, before) => {
      if (["facets", "where", "within", "to"].some((part) => now[part] !== before[part])) this.show();
    });
    this.show();
  }

  #group(column, open) {
    const list = make("div", { class: "values" });
    const element = make("details", { open }, make("summary", {}, column.name), list);
    const group = { column, element, list, all: false, values: column.values ?? [] };
    if (column.kind === "number") list.append(...this.#limits(group));
    else element.addEventListener("toggle", () => element.open && this.#count(group));
    return group;
  }

  #limits(group) {
    const { column } = group;
    const limit = (side, label) => make("label", {}, label, make("input", {
      type: "number", step: "any", placeholder: String(column[side === "from" ? "min" : "max"] ?? ""),
      onchange: (event) => {
        const value = event.target.value === "" ? undefined : Number(event.target.value);
        this.#set(column.name, { ...this.store.state.facets[column.name], [side]: value });
      },
    }));
    const [from, to] = [limit("from", "from"), limit("to", "to")];
    group.inputs = { from: from.querySelector("input"), to: to.querySelector("input") };
    return [make("div", { class: "limits" }, from, to)];
  }

  #set(name, facet) {
    const { [name]: _, ...others } = this.store.state.facets;
    const empty = !facet.values?.length && facet.from === undefined && facet.to === undefined;
    this.store.set({ facets: empty ? others : { ...others, [name]: facet } });
  }

  #expression() {
    const input = make("input", {
      type: "text", "aria-label": "Expression", placeholder: "year > 2020 and kind = 'map'", spellcheck: "false", autocomplete: "off",
    });
    const form = make("form", { onsubmit: (event) => { event.preventDefault(); this.store.set({ where: input.value }); } },
      input, make("p", { class: "muted small" }, "Columns with =, >, <, in, like, is null, and, or, not. Press Enter."));
    return { input, element: make("details", {}, make("summary", {}, "Expression"), form) };
  }

  show() {
    const { state } = this.store;
    this.clear.hidden = !filtered(state);
    this.expression.input.value = state.where;
    if (state.where) this.expression.element.open = true;
    for (const group of this.groups) {
      const facet = state.facets[group.column.name];
      if (group.inputs) {
        for (const side of ["from", "to"]) group.inputs[side].value = facet?.[side] ?? "";
      } else {
        this.#values(group);
        if (group.element.open) this.#count(group);
      }
    }
  }

  /** Asks how many items of the kind that is searched have each value, given all other filters. */
  #count = (() => {
    const asked = new Map();
    return (group) => {
      if (!asked.has(group)) asked.set(group, debounced(() => this.#recount(group), 150));
      asked.get(group)();
    };
  })();

  async #recount(group) {
    const { state } = this.store, where = expression(state, this.info.columns, group.column.name);
    const asked = JSON.stringify([where, state.to]);
    if (group.counted === asked) return;
    try {
      const values = await facets(group.column.name, where, state.to);
      group.counted = asked;
      group.values = values;
      this.#values(group);
    } catch { /* the counts stay as they were; the search says what is wrong */ }
  }

  #values(group) {
    const { column, list } = group, chosen = new Set(this.store.state.facets[column.name]?.values ?? []);
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.value : null;
    const here = new Set(group.values.map((one) => String(one.value)));
    const rows = [...group.values.filter((one) => one.value !== null),
      ...[...chosen].filter((value) => !here.has(value)).map((value) => ({ value, count: 0 }))];
    const shown = group.all ? rows : rows.filter((one, i) => i < FEW || chosen.has(String(one.value)));
    list.replaceChildren(...shown.map(({ value, count: many }) => {
      const box = make("input", {
        type: "checkbox", "data-value": value, checked: chosen.has(String(value)),
        onchange: (event) => {
          const values = new Set(chosen);
          values[event.target.checked ? "add" : "delete"](String(value));
          this.#set(column.name, { values: [...values] });
        },
      });
      return make("label", { class: "check" }, box, make("span", { class: "name" }, String(value)),
        make("span", { class: "muted" }, count(many)));
    }));
    if (rows.length > shown.length) {
      list.append(make("button", {
        type: "button", class: "link", onclick: () => { group.all = true; this.#values(group); },
      }, `${rows.length - shown.length} more`));
    }
    if (focused !== null) [...list.querySelectorAll("input")].find((box) => box.dataset.value === focused)?.focus();
  }
}
