// Points near a place, and areas drawn by hand.

/** Finds the point next to a place among millions: points sorted into square cells. */
export class Nearest {
  /** `positions`: x0, y0, x1, y1, … ; `box`: {left, bottom, width, height} around them. */
  constructor(positions, box) {
    const n = positions.length / 2;
    this.positions = positions;
    this.side = Math.max(1, Math.min(1024, Math.ceil(Math.sqrt(n / 4))));
    this.cell = Math.max(box.width, box.height, 1e-9) / this.side * 1.000001;
    this.left = box.left;
    this.bottom = box.bottom;
    this.starts = new Uint32Array(this.side * this.side + 1);
    const cells = new Uint32Array(n);
    for (let i = 0; i < n; i++) {
      cells[i] = this.#column(positions[2 * i], this.left) + this.side * this.#column(positions[2 * i + 1], this.bottom);
      this.starts[cells[i] + 1]++;
    }
    for (let c = 0; c < this.starts.length - 1; c++) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.sorted = new Uint32Array(n);
    for (let i = 0; i < n; i++) this.sorted[next[cells[i]]++] = i;
  }

  #column(value, start) {
    return Math.max(0, Math.min(this.side - 1, Math.floor((value - start) / this.cell)));
  }

  /** The index of the point next to (x, y) and at most `reach` away; -1 if there is none. */
  find(x, y, reach) {
    let best = -1, least = reach * reach;
    const [c0, c1] = [this.#column(x - reach, this.left), this.#column(x + reach, this.left)];
    const [r0, r1] = [this.#column(y - reach, this.bottom), this.#column(y + reach, this.bottom)];
    for (let r = r0; r <= r1; r++) {
      for (let s = this.starts[r * this.side + c0]; s < this.starts[r * this.side + c1 + 1]; s++) {
        const i = this.sorted[s], dx = this.positions[2 * i] - x, dy = this.positions[2 * i + 1] - y;
        if (dx * dx + dy * dy <= least) {
          least = dx * dx + dy * dy;
          best = i;
        }
      }
    }
    return best;
  }
}

/** The smallest box around points. */
export function around(positions) {
  let [left, right, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < positions.length; i += 2) {
    left = Math.min(left, positions[i]);
    right = Math.max(right, positions[i]);
    bottom = Math.min(bottom, positions[i + 1]);
    top = Math.max(top, positions[i + 1]);
  }
  return positions.length ? { left, bottom, width: right - left, height: top - bottom } : { left: 0, bottom: 0, width: 1, height: 1 };
}

function far([x, y], [x0, y0], [x1, y1]) {
  const dx = x1 - x0, dy = y1 - y0, length = Math.hypot(dx, dy);
  return length ? Math.abs(dy * (x - x0) - dx * (y - y0)) / length : Math.hypot(x - x0, y - y0);
}

function thinned(line, least) {
  let most = 0, at = 0;
  for (let i = 1; i < line.length - 1; i++) {
    const distance = far(line[i], line[0], line.at(-1));
    if (distance > most) [most, at] = [distance, i];
  }
  if (most <= least) return [line[0], line.at(-1)];
  return [...thinned(line.slice(0, at + 1), least).slice(0, -1), ...thinned(line.slice(at), least)];
}

/** The same line with at most `count` corners (Douglas and Peucker, with a growing tolerance). */
export function simplified(line, count, least = 0.5) {
  const found = thinned(line, least);
  return found.length <= count ? found : simplified(line, count, 2 * least);
}
