// The map of all items: pan, zoom, colours, an area to search in. What it shows the grid shows too.

import { colours, items, keyAt, positions } from "./api.js";
import { find, iconButton, make, title } from "./dom.js";
import { around, Nearest, simplified } from "./geometry.js";
import { Gestures } from "./gestures.js";
import { Points } from "./points.js";

const REACH = 12;                       // pixels between the pointer and a point that it means
const CORNERS = 60, ZOOMS = [0.8, 5000];

/** "#2c62b0" → [0.17, 0.38, 0.69] */
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);

export class MapView {
  constructor(store, info) {
    Object.assign(this, { store, info, hits: [] });
    this.view = { x: 0, y: 0, scale: 1 };
    this.#make();
    find("map-button").hidden = !info.has_map;
    find("map-button").addEventListener("click", () => this.toggle());
    store.listen((now, before) => {
      if (now.map !== before.map) this.#open(now.map);
      if (now.colour !== before.colour) this.#colour();
      if (now.within !== before.within) this.#area();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#palette());
    if (store.state.map && info.has_map) this.#open(true);
  }

  toggle() {
    if (this.info.has_map) this.store.set({ map: !this.store.state.map });
  }

  /** Marks the results at these places, unless everything is shown. */
  mark(places, asked) {
    this.hits = asked ? places.filter((at) => Number.isInteger(at)) : [];
    if (!this.points?.count) return;
    this.points.mark(this.hits.filter((at) => at < this.points.count));
    this.#draw();
  }

  #make() {
    const { store, info } = this;
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.drawn = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
    const over = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    over.setAttribute("aria-hidden", "true");
    over.append(this.drawn);
    this.tip = make("div", { class: "tip", hidden: true });
    this.field = make("div", {
      class: "field", tabindex: "0", role: "application",
      "aria-label": "Map of all items. Arrow keys move it, plus and minus zoom, 0 shows all. The results are listed below.",
    }, this.canvas, over, this.tip);
    this.lasso = iconButton("lasso", "Draw an area to search in (or hold Shift)", () => this.#drawing(!this.gestures.drawing), { "aria-pressed": "false" });
    this.colours = make("select", { id: "colour", onchange: () => store.set({ colour: this.colours.value }, "replace") },
      ["modality", ...info.columns.map((one) => one.name).filter((name) => name !== "modality")].map((name) => make("option", { value: name }, name)));
    this.legend = make("ul", { class: "legend", "aria-label": "Colours" });
    this.problem = make("p", { class: "message", hidden: true });
    find("map").append(
      make("div", { class: "line" },
        make("label", { for: "colour" }, "Colour by"), this.colours, this.legend,
        make("span", { class: "does" }, this.lasso,
          iconButton("frame", "Search only in what the map shows", () => this.#search(this.#corners())),
          iconButton("reset", "Show all", () => this.#fit()))),
      this.field, this.problem);
    this.gestures = new Gestures(this.field, {
      move: (dx, dy) => this.#move(dx, dy), zoom: (by, x, y) => this.#zoom(by, x, y), all: () => this.#fit(),
      hover: (x, y) => this.#hover(x, y), press: (x, y) => this.#press(x, y),
      line: (line) => this.drawn.setAttribute("points", line.map((at) => at.join(",")).join(" ")),
      drawn: (line) => this.#search(line),
    });
    new ResizeObserver(() => this.#size()).observe(this.field);
  }

  async #open(open) {
    find("map").hidden = !open;
    find("columns").classList.toggle("mapped", open);
    find("map-button").setAttribute("aria-pressed", String(open));
    if (!open || this.points?.count || this.loading) return;
    this.loading = true;
    this.problem.hidden = true;
    this.field.setAttribute("aria-busy", "true");
    try {
      this.points ??= new Points(this.canvas);
      const found = await positions();
      this.points.set(found);
      this.box = around(found);
      this.nearest = new Nearest(found, this.box);
      this.points.mark(this.hits.filter((at) => at < this.points.count));
      this.#palette();
      this.#size();
      this.#fit();
      await this.#colour();
    } catch (error) {
      this.problem.textContent = error.message === "no WebGL" ? "This browser can't draw the map: it has no WebGL 2."
        : `The map can't be shown. ${error.message}`;
      this.problem.hidden = false;
    } finally {
      this.loading = false;
      this.field.removeAttribute("aria-busy");
    }
  }

  #palette() {
    if (!this.points) return;
    const style = getComputedStyle(document.documentElement), value = (name) => rgb(style.getPropertyValue(name).trim());
    this.points.palette([...Array.from({ length: 8 }, (_, i) => value(`--series-${i}`)), value("--card"), value("--mark")]);
    this.#draw();
  }

  async #colour() {
    const { colour } = this.store.state;
    this.colours.value = colour;
    if (!this.points?.count) return;
    try {
      const { names, of } = await colours(colour);
      if (colour !== this.store.state.colour) return;
      this.points.colour(of);
      this.legend.replaceChildren(...names.slice(0, 8).map((name, i) => make("li", {}, make("i", { class: `s${i}` }), name)));
      this.#draw();
    } catch (error) {
      this.legend.replaceChildren(make("li", {}, error.message));
    }
  }

  #size() {
    const { clientWidth: width, clientHeight: height } = this.field, ratio = devicePixelRatio || 1;
    if (!width) return;
    [this.canvas.width, this.canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (!this.touched) this.#fit();
    this.#draw();
  }

  /** Shows all points. */
  #fit() {
    const { clientWidth: width, clientHeight: height } = this.field;
    if (!this.box || !width) return;
    this.whole = 0.92 * Math.min(width / (this.box.width || 1), height / (this.box.height || 1));
    this.view = { x: this.box.left + this.box.width / 2, y: this.box.bottom + this.box.height / 2, scale: this.whole };
    this.fitted = true;
    this.touched = false;
    this.#draw();
  }

  #move(dx, dy) {
    this.view.x -= dx / this.view.scale;
    this.view.y += dy / this.view.scale;
    this.#moved();
  }

  #zoom(by, x = this.field.clientWidth / 2, y = this.field.clientHeight / 2) {
    if (!this.fitted) return;
    const [mapX, mapY] = this.#toMap(x, y);
    const [least, most] = ZOOMS.map((zoom) => zoom * this.whole);
    this.view.scale = Math.min(most, Math.max(least, this.view.scale * by));
    const [nowX, nowY] = this.#toMap(x, y);
    this.view.x += mapX - nowX;
    this.view.y += mapY - nowY;
    this.#moved();
  }

  #moved() {
    this.touched = true;
    this.tip.hidden = true;
    this.#draw(true);
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.#draw(), 160);
  }

  #draw(moving = false) {
    if (!this.fitted || find("map").hidden) return;
    this.moving = moving;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.points.draw(this.view, this.view.scale / this.whole, this.moving);
      this.#area();
    });
  }

  #toMap(x, y) {
    const { clientWidth: width, clientHeight: height } = this.field;
    return [this.view.x + (x - width / 2) / this.view.scale, this.view.y - (y - height / 2) / this.view.scale];
  }

  #toScreen([x, y]) {
    const { clientWidth: width, clientHeight: height } = this.field;
    return [width / 2 + (x - this.view.x) * this.view.scale, height / 2 - (y - this.view.y) * this.view.scale];
  }

  #corners() {
    const { clientWidth: width, clientHeight: height } = this.field;
    return [[0, 0], [width, 0], [width, height], [0, height]];
  }

  #area() {
    if (this.gestures.line.length) return;
    const { within } = this.store.state;
    this.drawn.setAttribute("points", (within ?? []).map((at) => this.#toScreen(at).join(",")).join(" "));
  }

  #drawing(drawing) {
    this.gestures.drawing = drawing;
    this.lasso.setAttribute("aria-pressed", String(drawing));
    this.field.classList.toggle("drawing", drawing);
  }

  /** Searches in an area, given by its corners on the screen. */
  #search(line) {
    this.#drawing(false);
    if (!this.fitted) return;
    const corners = line.length > 2 ? simplified(line, CORNERS) : [];
    if (corners.length < 3) this.#area();
    else this.store.set({ within: corners.map(([x, y]) => this.#toMap(x, y)), saved: "" });
  }

  #point(x, y) {
    return this.nearest ? this.nearest.find(...this.#toMap(x, y), REACH / this.view.scale) : -1;
  }

  async #press(x, y) {
    const at = this.#point(x, y);
    if (at < 0) return;
    const key = await keyAt(at).catch(() => "");
    if (key) this.store.set({ open: key });
  }

  async #hover(x, y) {
    const at = x === null ? -1 : this.#point(x, y);
    this.field.classList.toggle("on-point", at >= 0);
    if (at === this.hovered) return;
    this.hovered = at;
    this.tip.hidden = true;
    if (at < 0) return;
    const [record] = await items([await keyAt(at)]).catch(() => []);
    if (!record || this.hovered !== at) return;
    this.tip.replaceChildren(...[record.thumb ? make("img", { src: record.thumb, alt: "" }) : null, make("p", {}, title(record))].filter(Boolean));
    this.tip.hidden = false;
    const [left, top] = this.#toScreen([this.points.positions[2 * at], this.points.positions[2 * at + 1]]);
    const room = [this.field.clientWidth - this.tip.offsetWidth - 8, this.field.clientHeight - this.tip.offsetHeight - 8];
    this.tip.style.left = `${Math.max(8, Math.min(left + 12, room[0]))}px`;
    this.tip.style.top = `${Math.max(8, Math.min(top + 12, room[1]))}px`;
  }
}
