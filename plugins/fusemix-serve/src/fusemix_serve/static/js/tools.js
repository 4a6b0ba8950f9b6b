// The row under the bar: what to find, from which percentile on, near-duplicates, the area of the map.

import { find, iconButton, make, percent } from "./dom.js";
import { asks } from "./results.js";
import { filtered } from "./where.js";

const STOPS = [0, 50, 75, 90, 95, 98, 99, 99.9];  // percentiles of the cut-off

export class Tools {
  constructor(store, info) {
    Object.assign(this, { store, info });
    this.#make();
    store.listen(() => this.show());
    this.show();
  }

  #make() {
    const { store, info } = this, kinds = [["", "All"], ...info.modalities.map(({ name }) => [name, name])];
    this.kinds = kinds.map(([value, label]) => make("input", {
      type: "radio", name: "to", value, id: `to-${value}`, onchange: () => store.set({ to: value }),
    }, label));
    const choices = this.kinds.flatMap((input, i) => [input, make("label", { for: input.id }, kinds[i][1])]);
    this.least = make("input", {
      type: "range", min: "0", max: String(STOPS.length - 1), step: "1", id: "least",
      oninput: () => this.#told(STOPS[this.least.value]),
      onchange: () => store.set({ min: STOPS[this.least.value] }),
    });
    this.least.value = "0";
    this.out = make("output", { for: "least" });
    this.fold = make("input", { type: "checkbox", onchange: () => store.set({ fold: this.fold.checked }) });
    this.area = make("span", { class: "chip" }, "Inside an area of the map",
      iconButton("close", "Search everywhere", () => store.set({ within: null })));
    this.filters = make("button", {
      type: "button", class: "quiet only-narrow", "aria-controls": "filters", "aria-expanded": "false",
      onclick: () => {
        const open = find("columns").classList.toggle("filtering");
        this.filters.setAttribute("aria-expanded", String(open));
      },
    }, "Filters");
    find("tools").append(...[
      kinds.length > 2 ? make("fieldset", { class: "kinds" }, make("legend", { class: "hidden" }, "What to find"), choices) : null,
      make("label", { class: "check" }, this.fold, "Fold near-duplicates"),
      make("span", { class: "cut" }, make("label", { for: "least" }, "Better than"), this.least, this.out), this.area,
      info.columns.length ? this.filters : null,
    ].filter(Boolean));
  }

  #told(min) {
    this.out.textContent = min ? `${percent(min).replace("> ", "")} of random pairs` : "any";
    this.least.setAttribute("aria-valuetext", this.out.textContent);
  }

  show() {
    const { state } = this.store;
    for (const input of this.kinds) input.checked = input.value === state.to;
    const stop = STOPS.findLastIndex((one) => one <= state.min);
    this.least.value = String(stop);
    this.least.disabled = !asks(state);
    this.#told(state.min);
    this.fold.checked = state.fold;
    this.area.hidden = !state.within;
    this.filters.classList.toggle("on", filtered(state));
  }
}
