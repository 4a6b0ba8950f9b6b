// The dialog of one item: the item itself, its columns, why it was found, and its near-duplicates.

import { items } from "./api.js";
import { actions, picture, score } from "./card.js";
import { find, iconButton, make, title } from "./dom.js";

function media(record, takes) {
  if (takes === "image" && record.media) return make("img", { src: record.media, alt: title(record) });
  if (takes === "audio" && record.media) return make("audio", { src: record.media, controls: true, preload: "metadata" });
  if (takes === "video" && record.media) return make("video", { src: record.media, controls: true, preload: "metadata" });
  return record.thumb ? picture(record, takes) : null;
}

function columns(record) {
  const filled = Object.entries(record.columns ?? {}).filter(([, value]) => value !== null && value !== "");
  const rows = [["name", record.item], ["kind", record.modality], ...filled];
  return make("dl", { class: "facts" }, rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
}

function shares(dims) {
  if (!dims?.length) return null;
  const most = Math.max(...dims.map((one) => Math.abs(one.share)), 1e-9);
  const row = ({ dim, share }) => {
    const bar = make("span", { class: "bar-of" }, make("i"));
    bar.firstChild.style.width = `${100 * Math.abs(share) / most}%`;
    return make("li", {}, make("span", {}, `dimension ${dim}`), bar, make("b", {}, `${Math.round(100 * share)}%`));
  };
  return [make("p", { class: "muted" }, "The dimensions that gave most of the similarity:"), make("ul", { class: "shares" }, dims.map(row))];
}

/** Why an item was found; null while browsing. */
export function why(record) {
  const { why: told } = record;
  if (!told) return null;
  const parts = [];
  if (typeof told.cosine === "number") parts.push(`Its cosine with the query is ${told.cosine.toFixed(3)}.`);
  if (typeof told.hubness === "number") {
    const [way, near] = told.hubness < 0 ? ["adds", "few"] : ["takes off", "many"];
    parts.push(` The score ${way} ${Math.abs(told.hubness).toFixed(3)}, because the item is close to ${near} queries.`);
  }
  const rank = score(record);
  return make("section", { class: "why" }, make("h3", {}, "Why it matched"),
    rank ? make("p", {}, rank, make("span", { "aria-hidden": "true" }, " of random pairs score lower")) : null,
    make("p", {}, parts), shares(told.dims));
}

export class ItemDialog {
  /** `act` as in card.js; `hits()` are the results among which one can step. */
  constructor(store, takes, act, isSaved, hits) {
    Object.assign(this, { store, takes, act, isSaved, hits });
    this.dialog = find("item");
    this.dialog.addEventListener("close", () => { if (store.state.open) store.set({ open: "" }); });
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.target.closest("audio, video")) return;
      if (event.key === "ArrowLeft") this.#step(-1);
      if (event.key === "ArrowRight") this.#step(1);
    });
    store.listen((now, before) => { if (now.open !== before.open) this.show(now.open); });
  }

  /** Opens the dialog on an item; "" closes it. */
  async show(key) {
    if (!key) {
      this.dialog.close();
      return;
    }
    let record = this.hits().find((hit) => hit.key === key);
    if (!record) [record] = await items([key]).catch(() => []);
    if (this.store.state.open !== key) return;
    this.dialog.replaceChildren(...(record ? this.#content(record) : this.#gone()));
    this.dialog.setAttribute("aria-label", record ? title(record) : "Item");
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    if (record?.duplicates?.length) this.#duplicates(record);
  }

  #step(by) {
    const hits = this.hits(), at = hits.findIndex((hit) => hit.key === this.store.state.open) + by;
    if (hits[at]) this.store.set({ open: hits[at].key }, "replace");
  }

  #head() {
    const at = this.hits().findIndex((hit) => hit.key === this.store.state.open), last = this.hits().length - 1;
    const step = (by, label, name, off) => iconButton(name, label, () => {
      this.#step(by);
    }, { disabled: off });
    return make("header", {},
      at >= 0 ? make("span", { class: "muted" }, `${at + 1} of ${last + 1}`) : null,
      at >= 0 ? step(-1, "Previous", "left", at === 0) : null,
      at >= 0 ? step(1, "Next", "right", at === last) : null,
      iconButton("close", "Close", () => this.dialog.close(), { autofocus: true }));
  }

  #content(record) {
    const takes = this.takes(record.modality), shown = media(record, takes);
    const doing = (name, one) => {
      if (name !== "save") this.dialog.close();
      this.act(name, one);
    };
    return [this.#head(), make("div", { class: `whole ${shown ? "" : "plain"}` },
      shown ? make("div", { class: "stage" }, shown) : null,
      make("div", { class: "told" },
        record.text ? make("p", { class: "words" }, record.text) : null,
        actions(record, doing, this.isSaved(record.key)),
        why(record),
        make("section", { class: "copies" }),
        make("h3", {}, "Columns"), columns(record)))];
  }

  #gone() {
    return [this.#head(), make("p", { class: "message" }, "This item is no longer in the index.")];
  }

  async #duplicates(record) {
    const copies = await items(record.duplicates).catch(() => []);
    if (this.store.state.open !== record.key || !copies.length) return;
    this.dialog.querySelector(".copies").replaceChildren(make("h3", {}, "Near-duplicates"),
      make("ul", { class: "row" }, copies.map((copy) => make("li", {}, make("button", {
        type: "button", title: title(copy), onclick: () => this.store.set({ open: copy.key }, "replace"),
      }, picture(copy, this.takes(copy.modality)), copy.thumb ? null : title(copy))))));
  }
}
