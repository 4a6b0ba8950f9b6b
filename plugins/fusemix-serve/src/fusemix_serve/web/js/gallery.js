// A collection in memory: its items, and searches of several queries. As the server's gallery.py.

import { condition } from "./condition.js";
import { Failure } from "./failure.js";
import { inside } from "./inside.js";
import { encoded } from "./words.js";

const MINUS = 0.5;   // the weight of excluded items in a query, if that of the queries is 1
const FOLDED = 2000; // results among which near-duplicates are looked for

export class Gallery {
  /** `info`, `items`: as in the files of those names; `files`: name → bytes. */
  constructor(info, items, files) {
    Object.assign(this, { info, items, dim: info.dim, count: items.key.length });
    const numbers = (name, Kind = Float32Array) => new Kind(files[name].buffer);
    this.codes = numbers("codes", info.dtype === "int8" ? Int8Array : Int16Array);
    [this.scales, this.added, this.shifts, this.map] = ["scales", "added", "shifts", "map"].map((name) => numbers(name));
    this.places = new Map(items.key.map((key, at) => [key, at]));
    let start = 0;
    this.ranges = Object.entries(info.items).map(([modality, count]) => ({ modality, start, end: start += count }));
    this.kinds = new Map([["item", "text"], ["modality", "text"], ...info.columns.map((one) => [one.name, one.kind])]);
    this.targets = this.ranges.map((one) => one.modality);
  }

  modality(at) {
    return this.ranges.find((one) => at < one.end).modality;
  }

  /** A function of a place: the value of a column there. */
  column(name) {
    if (Object.hasOwn(this.items.columns, name)) return (at) => this.items.columns[name][at];
    return name === "modality" ? (at) => this.modality(at) : (at) => this.items.item[at];
  }

  value(name, at) {
    return this.column(name)(at);
  }

  record(at) {
    const { items, info } = this, file = (name) => (name ? `data/${name}` : null);
    return {
      at, key: items.key[at], modality: this.modality(at), item: items.item[at], text: items.text[at],
      thumb: file(items.thumb[at]), media: file(items.media[at]),
      columns: Object.fromEntries(info.columns.map(({ name }) => [name, items.columns[name][at]])),
      score: null, percentile: null, why: null, duplicates: [],
    };
  }

  vector(at) {
    const start = at * this.dim, scale = this.scales[at];
    return Float32Array.from(this.codes.subarray(start, start + this.dim), (code) => code * scale);
  }

  async search({ queries, weights, minus = [], to, k, offset, where, within, group_duplicates: fold, min_percentile: least, places: marking }) {
    const allowed = this.#allowed(to, where, within);
    if (!queries.length && !minus.length) {
      const places = allowed ? Array.from({ length: this.count }, (_, at) => at).filter(allowed) : null;
      const shown = places?.slice(offset, offset + k) ?? Array.from({ length: Math.min(k, this.count - offset) }, (_, i) => offset + i);
      const marked = marking && (where || within) ? places : null;
      return { hits: shown.map((at) => this.record(at)), total: places?.length ?? this.count, places: marked };
    }
    const query = await this.#query(queries, weights, minus);
    const results = this.#ranked(query, to ? [to] : this.targets, allowed, least);
    const { groups, folded } = fold ? this.#folded(results, offset + k) : { groups: results.map((one) => ({ ...one, same: [] })), folded: 0 };
    const hits = groups.slice(offset, offset + k).map((one) => this.#hit(one, query));
    return { hits, total: results.length - folded, places: marking && least ? results.map((one) => one.at) : null };
  }

  #allowed(to, where, within) {
    const tests = [];
    if (to) tests.push((at) => this.modality(at) === to);
    if (where) {
      const passes = condition(where, this.kinds);
      tests.push((at) => passes((name) => this.value(name, at)));
    }
    if (within) tests.push((at) => inside(this.map[2 * at], this.map[2 * at + 1], within));
    return tests.length ? (at) => tests.every((test) => test(at)) : null;
  }

  /** Several queries as one: their weighted mean, less half the mean of the excluded items. */
  async #query(queries, weights, minus) {
    const parts = await Promise.all(queries.map((one) => this.#part(one))), heavy = new Map();
    const vector = new Float64Array(this.dim), total = weights.reduce((sum, weight) => sum + Math.abs(weight), 0);
    const add = (values, weight) => values.forEach((value, i) => { vector[i] += weight * value; });
    parts.forEach((part, i) => {
      add(part.vector, weights[i] / Math.max(total, 1e-9));
      if (this.info.asks.includes(part.modality)) heavy.set(part.modality, (heavy.get(part.modality) ?? 0) + Math.abs(weights[i]));
    });
    const taken = minus.map((key) => this.#place(key));
    for (const at of taken) add(this.vector(at), -MINUS / taken.length);
    const length = Math.hypot(...vector);
    if (length < 1e-6) throw new Failure("The queries cancel each other out.", "Take one away.");
    const [[modality]] = heavy.size ? [...heavy].sort(([, a], [, b]) => b - a) : [[this.info.asks[0]]];
    // What a query adds to all of its scores is known of single ones only.
    const single = parts.length === 1 && !minus.length && weights[0] > 0;
    return {
      vector: vector.map((value) => value / length), modality, shift: single ? parts[0].shift : null,
      exclude: new Set([...queries.filter((one) => one.key).map((one) => this.#place(one.key)), ...taken]),
    };
  }

  #place(key) {
    const at = this.places.get(key);
    if (at === undefined) throw new Failure("The collection has no item of this key.");
    return at;
  }

  async #part({ key, modality, text, upload }) {
    if (upload) throw new Failure("This page can't search by files.");
    if (key) {
      const at = this.#place(key), n = this.targets.length;
      return { vector: this.vector(at), modality: this.modality(at), shift: this.shifts.subarray(at * n, (at + 1) * n) };
    }
    if (!this.info.words[modality]) throw new Failure(`This page can't search by ${modality}.`);
    return { modality, ...(await encoded(this.info, modality, text)) };
  }

  /** Inner products of a lifted query with the lifted items of a range. */
  #products({ vector, modality }, start, end) {
    const { codes, scales, added, dim } = this, more = this.info.columns_added[modality], kept = more.length;
    const found = new Float64Array(end - start);
    for (let at = start; at < end; at++) {
      let sum = 0, extra = 0;
      for (let i = 0, from = at * dim; i < dim; i++) sum += vector[i] * codes[from + i];
      for (let i = 0; i < kept; i++) extra += more[i] * added[at * kept + i];
      found[at - start] = sum * scales[at] + extra;
    }
    return found;
  }

  /** All items that pass, best first. Scores of different modalities can't be compared: several
   *  are merged by percentile, and by rank. */
  #ranked(query, targets, allowed, least) {
    const ranked = [];
    for (const { modality: target, start, end } of this.ranges.filter((one) => targets.includes(one.modality))) {
      const products = this.#products(query, start, end), name = `${query.modality}>${target}`;
      const shift = query.shift?.[this.targets.indexOf(target)] ?? 0;
      const own = [];
      for (let at = start; at < end; at++) {
        if (query.exclude.has(at) || (allowed && !allowed(at))) continue;
        own.push({ at, score: this.info.slopes[name] * products[at - start] + shift });
      }
      own.sort((a, b) => b.score - a.score || a.at - b.at);
      own.forEach((one, rank) => {
        one.rank = rank;
        one.percentile = query.shift ? this.#percentile(name, one.score) : null;
      });
      ranked.push(...(least ? own.filter((one) => one.percentile === null || one.percentile >= least) : own));
    }
    if (targets.length > 1) ranked.sort((a, b) => (b.percentile ?? 0) - (a.percentile ?? 0) || a.rank - b.rank);
    return ranked;
  }

  /** How many of 100 random pairs score lower. */
  #percentile(name, score) {
    const scores = this.info.scores[name], { levels } = this.info;
    if (!scores) return null;
    const above = scores.findIndex((one) => one > score);
    if (above < 0) return levels.at(-1);
    if (above === 0) return levels[0];
    const [low, high] = [scores[above - 1], scores[above]];
    return levels[above - 1] + (levels[above] - levels[above - 1]) * (score - low) / (high - low);
  }

  /** The first `wanted` results with the near-duplicates of each, and how many these are. */
  #folded(results, wanted) {
    const groups = [];
    let folded = 0;
    for (const one of results.slice(0, Math.max(FOLDED, wanted))) {
      const vector = this.vector(one.at), modality = this.modality(one.at);
      const same = groups.find((group) => group.modality === modality && dot(group.vector, vector) >= this.info.same);
      if (same) {
        same.same.push(this.items.key[one.at]);
        folded++;
      } else if (groups.length < wanted) groups.push({ ...one, vector, modality, same: [] });
    }
    return { groups, folded };
  }

  #hit({ at, score, percentile, same }, query) {
    const products = this.vector(at).map((value, i) => value * query.vector[i]);
    const positive = products.reduce((sum, value) => sum + Math.max(0, value), 0) || 1e-9;
    const dims = [...products.keys()].sort((a, b) => products[b] - products[a]).slice(0, 3);
    const kept = this.info.columns_added[query.modality].length, { asks } = this.info;
    return {
      ...this.record(at), score, percentile, duplicates: same,
      why: {
        cosine: products.reduce((sum, value) => sum + value, 0),
        hubness: kept === asks.length ? -2 * this.added[at * kept + asks.indexOf(query.modality)] : null,
        dims: dims.map((dim) => ({ dim, share: Math.max(0, products[dim]) / positive })),
      },
    };
  }
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
