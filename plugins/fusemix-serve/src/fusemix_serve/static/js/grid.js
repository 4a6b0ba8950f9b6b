// Results as an ARIA grid: one cell is reached by Tab, the arrow keys move between cells.

import { card } from "./card.js";
import { make } from "./dom.js";

const LETTERS = { m: "like", a: "add", x: "minus", s: "save" };

export class Grid {
  /** `takes` maps a modality to its medium; `act(name, record)` does what a card or a key asks. */
  constructor(element, takes, act, isSaved) {
    Object.assign(this, { element, takes, act, isSaved });
    this.records = [];
    this.cells = [];
    this.at = 0;
    this.columns = 1;
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("focusin", (event) => {
      const cell = event.target.closest(".card");
      if (cell) this.#reach(this.cells.indexOf(cell));
    });
    new ResizeObserver(() => this.#arrange()).observe(element);
  }

  /** Shows records; those before `kept` are already there. */
  show(records, kept = 0) {
    const hadFocus = !kept && this.element.contains(document.activeElement);
    if (!kept) this.cells = [];
    this.records = records;
    for (const record of records.slice(kept)) {
      const cell = card(record, this.takes(record.modality), this.act, this.isSaved(record.key));
      for (const button of cell.querySelectorAll("button")) button.tabIndex = -1;
      this.cells.push(cell);
    }
    if (!kept) this.at = 0;
    this.columns = 0;
    this.#arrange();
    this.#reach(this.at);
    if (hadFocus) this.focus();
  }

  /** Puts the focus on a cell. */
  focus(at = this.at) {
    this.cells[at]?.focus();
  }

  /** The star of an item that was saved or removed. */
  mark(key, saved) {
    for (const star of document.querySelectorAll("[data-save]")) {
      if (star.dataset.save === key) star.setAttribute("aria-pressed", String(saved));
    }
  }

  /** Puts cells into rows: as many a row as the style sheet lays out. */
  #arrange() {
    if (!this.cells.length) {
      this.element.replaceChildren();
      return;
    }
    const laid = getComputedStyle(this.element).gridTemplateColumns.split(" ").length;
    if (laid === this.columns && this.element.childElementCount) return;
    this.columns = laid;
    const focused = document.activeElement, rows = [];
    for (let first = 0; first < this.cells.length; first += laid) {
      rows.push(make("div", { role: "row" }, this.cells.slice(first, first + laid)));
    }
    this.element.replaceChildren(...rows);
    if (this.element.contains(focused)) focused.focus({ preventScroll: true });
  }

  #reach(at) {
    const turn = (tabindex) => {
      const cell = this.cells[this.at];
      for (const one of cell ? [cell, ...cell.querySelectorAll("button")] : []) one.tabIndex = tabindex;
    };
    turn(-1);
    this.at = Math.max(0, Math.min(at, this.cells.length - 1));
    turn(0);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns,
      Home: -this.at, End: this.cells.length - 1 - this.at,
    };
    const record = this.records[this.at], onCell = event.target === this.cells[this.at];
    if (event.key in steps) {
      event.preventDefault();
      const next = this.at + steps[event.key];
      if (next >= this.cells.length) this.reachesEnd?.();
      if (next >= 0 && next < this.cells.length) this.focus(next);
    } else if (event.key === "Enter" && onCell) {
      event.preventDefault();
      this.act("open", record);
    } else if (event.key in LETTERS) {
      event.preventDefault();
      event.stopPropagation();
      this.act(LETTERS[event.key], record);
    }
  }
}
