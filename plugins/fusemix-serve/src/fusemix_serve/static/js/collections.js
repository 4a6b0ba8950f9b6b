// Lists of items that the user keeps in this browser, and their CSV.

import { items } from "./api.js";
import { csv, save } from "./csv.js";
import { counted, find, iconButton, make } from "./dom.js";

const FIRST = "Saved";

/** Named lists of keys in localStorage; in memory if the browser keeps nothing. */
export class Collections {
  /** `name`: of the index, whose lists these are. `changed(key, saved)` is called for each star. */
  constructor(name, changed) {
    this.place = `fusemix.collections.${name}`;
    this.changed = changed;
    this.kept = true;
    this.#load();
    addEventListener("storage", (event) => event.key === this.place && this.#load());
  }

  #load() {
    this.lists = new Map([[FIRST, []]]);
    this.current = FIRST;
    try {
      const { current, lists } = JSON.parse(localStorage.getItem(this.place) ?? "{}");
      const read = Object.entries(lists ?? {}).filter(([, keys]) => Array.isArray(keys));
      if (read.length) this.lists = new Map(read.map(([name, keys]) => [name, keys.filter((key) => typeof key === "string")]));
      this.current = this.lists.has(current) ? current : [...this.lists.keys()][0];
    } catch { /* nothing kept, or not by this page: start afresh */ }
  }

  #keep() {
    try {
      localStorage.setItem(this.place, JSON.stringify({ current: this.current, lists: Object.fromEntries(this.lists) }));
      this.kept = true;
    } catch {
      this.kept = false;
    }
  }

  keys(name) {
    return this.lists.get(name) ?? [];
  }

  has(key) {
    return this.keys(this.current).includes(key);
  }

  /** Saves an item in the current list, or removes it. */
  toggle(key) {
    const keys = this.keys(this.current), saved = !keys.includes(key);
    this.lists.set(this.current, saved ? [...keys, key] : keys.filter((one) => one !== key));
    this.#keep();
    this.changed(key, saved);
  }

  /** Makes a list the current one, new if there is none of that name. */
  choose(name) {
    if (!this.lists.has(name)) this.lists.set(name, []);
    this.current = name;
    this.#keep();
    this.changed(null);
  }

  remove(name) {
    this.lists.delete(name);
    if (!this.lists.size) this.lists.set(FIRST, []);
    if (this.current === name) this.current = [...this.lists.keys()][0];
    this.#keep();
    this.changed(null);
  }
}

/** The dialog of the lists. */
export class CollectionsDialog {
  constructor(collections, store, info) {
    Object.assign(this, { collections, store, info });
    this.dialog = find("saved");
    this.note = make("p", { role: "status", class: "muted" });
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    find("saved-button").addEventListener("click", () => this.show());
  }

  show() {
    this.note.textContent = "";
    this.#fill();
    this.dialog.showModal();
  }

  #fill() {
    const { collections } = this;
    const name = make("input", { type: "text", "aria-label": "Name of a new collection", placeholder: "New collection", maxlength: "80" });
    const made = (event) => {
      event.preventDefault();
      if (!name.value.trim()) return;
      collections.choose(name.value.trim());
      this.#fill();
    };
    this.dialog.replaceChildren(
      iconButton("close", "Close", () => this.dialog.close(), { class: "icon corner" }),
      make("h2", { id: "saved-title" }, "Collections"),
      make("p", { class: "muted" }, collections.kept ? "They are kept in this browser only. The star on a result saves it in the chosen one."
        : "This browser doesn't let the page keep them: export them before you close it."),
      make("ul", { class: "lists" }, [...collections.lists].map(([title, keys]) => this.#row(title, keys))),
      make("form", { class: "line", onsubmit: made }, name, make("button", { type: "submit" }, "Add")), this.note);
  }

  #row(title, keys) {
    const { collections, store } = this;
    const current = make("input", {
      type: "radio", name: "current", checked: title === collections.current,
      onchange: () => collections.choose(title),
    });
    return make("li", {}, make("label", { class: "check" }, current, make("span", { class: "name" }, title)),
      make("span", { class: "muted" }, counted(keys.length, "item")),
      make("button", { type: "button", class: "quiet", onclick: () => { this.dialog.close(); store.set({ saved: title, open: "" }); } }, "Show"),
      iconButton("down", `Export ${title} as CSV`, () => this.#export(title, keys), { disabled: !keys.length }),
      iconButton("close", `Delete ${title}`, () => this.#delete(title, keys)));
  }

  #delete(title, keys) {
    if (keys.length && !confirm(`Delete the collection “${title}” with ${counted(keys.length, "item")}?`)) return;
    this.collections.remove(title);
    if (this.store.state.saved === title) this.store.set({ saved: "" });
    this.#fill();
  }

  async #export(title, keys) {
    try {
      const records = await items(keys);
      save(csv(records, this.info.columns), `${title}.csv`);
      this.note.textContent = records.length === keys.length ? ""
        : `${counted(keys.length - records.length, "item")} of it ${keys.length - records.length === 1 ? "is" : "are"} no longer in the index.`;
    } catch (error) {
      this.note.textContent = error.message;
    }
  }
}
