// The bar: words, files and recorded sounds, each a part of the query; items that are excluded.

import { items, known, upload } from "./api.js";
import { find, icon, iconButton, make, title } from "./dom.js";
import { canRecord, Recorder } from "./record.js";

const FILES = { image: "image", audio: "sound", video: "video" };  // medium of a file → what it's called
const SUFFIXES = {
  image: /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic)$/i, audio: /\.(wav|flac|ogg|oga|opus|mp3|aiff?|m4a)$/i,
  video: /\.(mp4|mkv|webm|mov|avi|m4v|mpe?g)$/i,
};
const WEIGHTS = [["0.5", "half"], ["1", "normal"], ["2", "double"]];
const LIMIT = 120;  // seconds of a recording

/** Modalities whose queries are typed. */
export const typed = (query) => query.filter((one) => !(one.takes in FILES)).map((one) => one.name);

function mediumOf(file) {
  const [medium] = file.type.split("/");
  if (medium in FILES) return medium;
  return Object.keys(SUFFIXES).find((one) => SUFFIXES[one].test(file.name)) ?? "";
}

export class Query {
  constructor(store, info) {
    Object.assign(this, { store, info });
    this.previews = new Map();  // upload → address of what the user gave
    this.pending = [];          // names of files under way
    this.modality = (medium) => info.query.find((one) => one.takes === medium)?.name;
    this.#prepare();
    this.#listen();
    store.listen((now, before) => {
      if (now.text !== before.text) find("text").value = now.text;
      if (now.queries !== before.queries || now.minus !== before.minus) this.#chips();
    });
    find("text").value = store.state.text;
    this.#chips();
  }

  #prepare() {
    const media = Object.keys(FILES).filter((medium) => this.modality(medium));
    const words = this.info.typed.length > 0;
    for (const id of ["text", "add"]) find(id).hidden = !words;
    const other = media.map((medium) => FILES[medium]).join(" or ");
    find("text").placeholder = words ? `Search by words${other ? `, or drop an ${other}`.replace("an sound", "a sound").replace("an video", "a video") : ""}` : "";
    find("pick").hidden = !media.length;
    find("pick").title = `Search by an ${other}`.replace("an sound", "a sound");
    find("file").accept = media.map((medium) => `${medium}/*`).join(",");
    find("record").hidden = !this.modality("audio") || !canRecord();
    find("record").title = "Record a sound";
    const kinds = find("typed");
    kinds.hidden = this.info.typed.length < 2;
    kinds.replaceChildren(...this.info.typed.map((name) => make("option", { value: name }, name)));
    if (this.info.typed.includes(this.store.state.typed)) kinds.value = this.store.state.typed;
  }

  #listen() {
    find("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#note("");
      this.#change({ text: find("text").value.trim() });
    });
    find("text").addEventListener("keydown", (event) => {
      if (event.key !== "Backspace" || event.target.value || !this.store.state.queries.length) return;
      this.#change({ queries: this.store.state.queries.slice(0, -1) });
    });
    find("text").addEventListener("input", (event) => {
      if (!event.target.value && this.store.state.text) this.#change({ text: "" });  // the clearing cross
    });
    find("typed").addEventListener("change", (event) => this.#change({ typed: event.target.value }));
    find("add").addEventListener("click", () => this.#addWords());
    find("pick").addEventListener("click", () => find("file").click());
    find("file").addEventListener("change", (event) => {
      this.files([...event.target.files]);
      event.target.value = "";
    });
    find("record").addEventListener("click", () => this.#record());
    document.addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) {
        event.preventDefault();
        this.files([...event.clipboardData.files]);
      }
    });
    this.#dropping();
  }

  #dropping() {
    const carries = (event) => event.dataTransfer?.types.includes("Files");
    let depth = 0;
    const over = (change) => (event) => {
      if (!carries(event)) return;
      depth = Math.max(0, depth + change);
      find("drop").hidden = depth === 0;
    };
    addEventListener("dragenter", over(1));
    addEventListener("dragleave", over(-1));
    addEventListener("dragover", (event) => carries(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      depth = 0;
      find("drop").hidden = true;
      this.files([...event.dataTransfer.files]);
    });
  }

  /** A query of this one item. */
  like(record) {
    this.#change({ text: "", queries: [{ key: record.key, weight: 1 }], minus: [] });
  }

  /** Adds an item to the query. */
  addItem(record) {
    const { queries, minus } = this.store.state;
    if (queries.some((query) => query.key === record.key)) return;
    this.#change({ queries: [...queries, { key: record.key, weight: 1 }], minus: minus.filter((k) => k !== record.key) });
  }

  /** Fewer results like this item. */
  exclude(record) {
    const { queries, minus } = this.store.state;
    if (minus.includes(record.key)) return;
    this.#change({ minus: [...minus, record.key], queries: queries.filter((query) => query.key !== record.key) });
  }

  #addWords() {
    const text = find("text").value.trim(), modality = find("typed").value || this.info.typed[0];
    find("text").focus();
    if (!text) {
      this.#note("Type some words first.");
      return;
    }
    this.#change({ text: "", queries: [...this.store.state.queries, { modality, text, weight: 1 }] });
    find("text").value = "";
  }

  /** Searches by files, added to the query. */
  async files(files) {
    this.#note("");
    for (const file of files) {
      const medium = mediumOf(file), modality = this.modality(medium);
      if (!modality) {
        const what = medium ? `a ${FILES[medium]}`.replace("a image", "an image") : `${file.name || "that file"}`;
        this.#note(`This index can't be searched by ${what}.`);
        continue;
      }
      this.pending.push(file.name);
      this.#chips();
      try {
        const id = await upload(file, modality);
        this.previews.set(id, { medium, address: URL.createObjectURL(file) });
        const part = { modality, upload: id, name: file.name, weight: 1 };
        this.#change({ queries: [...this.store.state.queries, part] });
      } catch (error) {
        this.#note([error.message, error.hint].filter(Boolean).join(" "));
      } finally {
        this.pending.splice(this.pending.indexOf(file.name), 1);
        this.#chips();
      }
    }
  }

  async #record() {
    const button = find("record"), shown = button.querySelector("use"), label = button.querySelector(".hidden");
    const ready = (recording) => {
      button.setAttribute("aria-pressed", String(recording));
      shown.setAttribute("href", recording ? "#i-stop" : "#i-mic");
      label.textContent = button.title = recording ? "Stop and search" : "Record a sound";
    };
    if (this.recorder) {
      const { recorder } = this;
      this.recorder = null;
      ready(false);
      clearInterval(this.clock);
      this.#note("");
      await this.files([await recorder.stop()]);
      return;
    }
    try {
      this.recorder = await Recorder.start();
    } catch (error) {
      this.#note(error.name === "NotAllowedError" ? "The browser doesn't allow this page to use the microphone."
        : "No microphone was found.");
      return;
    }
    ready(true);
    const tick = () => {
      if (!this.recorder) return;
      this.#note(`Recording: ${Math.floor(this.recorder.seconds)} s. Press the square to search.`);
      if (this.recorder.seconds >= LIMIT) this.#record();
    };
    this.clock = setInterval(tick, 1000);
    tick();
  }

  #change(changes) {
    this.store.set({ ...changes, saved: "", open: "" });
  }

  #note(text) {
    find("ask-note").textContent = text;
  }

  async #chips() {
    const { queries, minus } = this.store.state;
    const keys = [...queries.map((query) => query.key), ...minus].filter((key) => key && !known(key));
    const several = queries.length + (this.store.state.text ? 1 : 0) > 1;
    const show = () => find("chips").replaceChildren(
      ...queries.map((query, i) => this.#chip(query, i, several)),
      ...minus.map((key) => this.#minusChip(key)),
      ...this.pending.map((name) => make("li", { class: "chip pending" }, name || "sound", " …")));
    show();
    find("chips").hidden = !find("chips").childElementCount;
    if (!keys.length) return;
    await items(keys).catch(() => {});  // the chips keep their keys
    if (this.store.state.queries === queries && this.store.state.minus === minus) show();
  }

  #chip(query, i, several) {
    const others = () => this.store.state.queries.filter((_, j) => j !== i);
    const record = query.key && known(query.key), name = query.text ?? query.name ?? (record ? title(record) : query.key);
    const weight = make("select", {
      "aria-label": `How much “${name}” counts`, class: "weight",
      onchange: (event) => this.#change({
        queries: this.store.state.queries.map((one, j) => (j === i ? { ...one, weight: Number(event.target.value) } : one)),
      }),
    }, WEIGHTS.map(([value, label]) => make("option", { value, selected: Number(value) === query.weight }, label)));
    return make("li", { class: "chip" }, this.#front(query, record), make("span", { class: "name", title: name }, name),
      several ? weight : null,
      iconButton("close", `Remove “${name}”`, () => this.#change({ queries: others() })));
  }

  #minusChip(key) {
    const record = known(key), name = record ? title(record) : key;
    const rest = () => this.store.state.minus.filter((one) => one !== key);
    return make("li", { class: "chip minus" }, icon("minus"), this.#front({ key }, record),
      make("span", { class: "name", title: name }, make("span", { class: "hidden" }, "Less like "), name),
      iconButton("close", `No longer exclude “${name}”`, () => this.#change({ minus: rest() })));
  }

  #front(query, record) {
    if (record?.thumb) return make("img", { src: record.thumb, alt: "" });
    const preview = this.previews.get(query.upload);
    if (preview?.medium === "image") return make("img", { src: preview.address, alt: "" });
    if (preview?.medium === "audio") {
      return iconButton("play", `Play ${query.name}`, () => new Audio(preview.address).play());
    }
    const medium = query.upload && this.info.query.find((one) => one.name === query.modality)?.takes;
    return medium ? icon(medium === "audio" ? "sound" : "file") : null;
  }
}
