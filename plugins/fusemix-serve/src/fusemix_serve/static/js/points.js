// Draws a million points with WebGL: one buffer of places, one of colours, and a few marked points on top.

const VERTEX = `#version 300 es
in vec2 place;
in float kind;
uniform vec2 centre, span;
uniform float size;
uniform float alpha;
uniform vec3 palette[10];
out vec4 colour;
void main() {
  gl_Position = vec4((place - centre) * span, 0.0, 1.0);
  gl_PointSize = size;
  colour = vec4(palette[int(kind)], alpha);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec4 colour;
uniform float size;
out vec4 shown;
void main() {
  float away = length(gl_PointCoord * 2.0 - 1.0);
  float edge = size < 3.0 ? 1.0 : 1.0 - smoothstep(1.0 - 2.0 / size, 1.0, away);
  shown = vec4(colour.rgb * colour.a * edge, colour.a * edge);
}`;
const EDGE = 8, MARK = 9;       // places of the palette after the eight kinds
const WHILE_MOVING = 150_000;   // points drawn in each frame of a movement

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made) ?? "WebGL");
  return made;
}

/** A step through 0…n-1 that visits all in a scattered order: the first of them are a fair sample. */
function scattered(n) {
  let step = Math.max(1, Math.round(n * 0.618034));
  const common = (a, b) => (b ? common(b, a % b) : a);
  while (common(step, n) !== 1) step++;
  const order = new Uint32Array(n);
  for (let i = 0, at = 0; i < n; i++, at = (at + step) % n) order[i] = at;
  return order;
}

export class Points {
  /** Throws if this browser has no WebGL 2. */
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true });
    if (!gl) throw new Error("no WebGL");
    Object.assign(this, { canvas, gl, count: 0, marked: 0 });
    const used = program(gl);
    gl.useProgram(used);
    this.uniform = Object.fromEntries(["centre", "span", "size", "alpha", "palette"].map((n) => [n, gl.getUniformLocation(used, n)]));
    this.place = gl.getAttribLocation(used, "place");
    this.kind = gl.getAttribLocation(used, "kind");
    [this.places, this.kinds, this.marks] = [gl.createBuffer(), gl.createBuffer(), gl.createBuffer()];
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.enableVertexAttribArray(this.place);
  }

  #fill(buffer, values) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, buffer);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, values, this.gl.STATIC_DRAW);
  }

  /** All points; x0, y0, x1, y1, … */
  set(positions) {
    this.positions = positions;
    this.count = positions.length / 2;
    this.order = scattered(this.count);
    const places = new Float32Array(positions.length);
    this.order.forEach((from, i) => {
      places[2 * i] = positions[2 * from];
      places[2 * i + 1] = positions[2 * from + 1];
    });
    this.#fill(this.places, places);
    this.colour(new Uint8Array(this.count));
  }

  /** The kind of each point: 0 to 7. */
  colour(kinds) {
    this.#fill(this.kinds, Uint8Array.from(this.order, (from) => Math.min(7, kinds[from])));
  }

  /** The points to mark, by index. */
  mark(indices) {
    const places = Float32Array.from(indices.flatMap((i) => [this.positions[2 * i], this.positions[2 * i + 1]]));
    this.marked = indices.length;
    this.#fill(this.marks, places);
  }

  /** Ten colours as [red, green, blue] of 0–1: eight kinds, the edge of a mark, the mark. */
  palette(colours) {
    this.gl.uniform3fv(this.uniform.palette, new Float32Array(colours.flat()));
  }

  /** Draws. `view`: {x, y, scale}, the middle in map units and pixels a unit; `zoom`: 1 shows all. */
  draw({ x, y, scale }, zoom, moving) {
    const { gl, canvas, uniform } = this, ratio = devicePixelRatio || 1;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(uniform.centre, x, y);
    gl.uniform2f(uniform.span, 2 * scale * ratio / canvas.width, 2 * scale * ratio / canvas.height);
    const size = Math.min(14, Math.max(1.5, Math.min(8, 240 / Math.sqrt(this.count)) * zoom ** 0.4));
    const quiet = this.marked ? 0.55 : 0.8;
    this.#points(this.places, moving ? Math.min(this.count, WHILE_MOVING) : this.count, size * ratio, quiet, this.kinds);
    if (this.marked) {
      this.#points(this.marks, this.marked, (Math.max(size, 7) + 4) * ratio, 1, EDGE);
      this.#points(this.marks, this.marked, Math.max(size, 7) * ratio, 1, MARK);
    }
  }

  #points(places, count, size, alpha, kinds) {
    const { gl, uniform } = this;
    if (!count) return;
    gl.uniform1f(uniform.size, size);
    gl.uniform1f(uniform.alpha, alpha);
    gl.bindBuffer(gl.ARRAY_BUFFER, places);
    gl.vertexAttribPointer(this.place, 2, gl.FLOAT, false, 0, 0);
    if (typeof kinds === "number") {
      gl.disableVertexAttribArray(this.kind);
      gl.vertexAttrib1f(this.kind, kinds);
    } else {
      gl.bindBuffer(gl.ARRAY_BUFFER, kinds);
      gl.enableVertexAttribArray(this.kind);
      gl.vertexAttribPointer(this.kind, 1, gl.UNSIGNED_BYTE, false, 0, 0);
    }
    gl.drawArrays(gl.POINTS, 0, count);
  }
}
