// Mouse, touch and keys on the map, as movements, zooms and drawn lines in pixels of the element.

const CLICK = 4;      // pixels that a click may slip
const STEP = 60;      // pixels of an arrow key

export class Gestures {
  /** `on`: move(dx, dy), zoom(factor, x, y), all(), hover(x, y), press(x, y), line(line), drawn(line). */
  constructor(element, on) {
    Object.assign(this, { element, on, line: [], drawing: false });
    this.held = new Map();  // pointers that are down → [x, y]
    const listen = (name, does, options) => element.addEventListener(name, does, options);
    listen("pointerdown", (event) => this.#down(event));
    listen("pointermove", (event) => this.#moved(event));
    listen("pointerup", (event) => this.#up(event, true));
    listen("pointercancel", (event) => this.#up(event, false));
    listen("pointerleave", () => on.hover(null, null));
    listen("wheel", (event) => {
      event.preventDefault();
      on.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), ...this.#at(event));
    }, { passive: false });
    listen("dblclick", (event) => on.zoom(2, ...this.#at(event)));
    listen("keydown", (event) => this.#key(event));
  }

  #at(event) {
    const { left, top } = this.element.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  #down(event) {
    if (event.button) return;
    this.element.setPointerCapture(event.pointerId);
    this.held.set(event.pointerId, this.#at(event));
    this.slipped = 0;
    this.lassoes = this.held.size === 1 && (this.drawing || event.shiftKey);
    this.line = this.lassoes ? [this.#at(event)] : [];
  }

  #moved(event) {
    const at = this.#at(event), before = this.held.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") this.on.hover(...at);
      return;
    }
    this.slipped += Math.hypot(at[0] - before[0], at[1] - before[1]);
    if (this.lassoes) {
      this.line.push(at);
      this.on.line(this.line);
    } else if (this.held.size === 1) {
      this.on.move(at[0] - before[0], at[1] - before[1]);
    } else {
      this.#pinch(event.pointerId, before, at);
    }
    this.held.set(event.pointerId, at);
  }

  #pinch(id, before, at) {
    const [other] = [...this.held].filter(([one]) => one !== id).map(([, where]) => where);
    const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
    this.on.zoom(apart(at) / apart(before), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    this.on.move((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
  }

  #up(event, done) {
    if (!this.held.delete(event.pointerId)) return;
    const { line } = this;
    this.line = [];
    if (this.lassoes) {
      this.lassoes = false;
      this.on.drawn(done ? line : []);
    } else if (done && this.slipped <= CLICK && !this.held.size) {
      this.on.press(...this.#at(event));
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    if (event.key in moves) this.on.move(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.on.zoom(1.4);
    else if (event.key === "-") this.on.zoom(1 / 1.4);
    else if (event.key === "0") this.on.all();
    else return;
    event.preventDefault();
  }
}
