// The answers of `fusemix serve`, worked out in the browser from files beside the page.

import { classes } from "./classes.js";
import { condition } from "./condition.js";
import { Failure } from "./failure.js";
import { bytes, json } from "./files.js";
import { Gallery } from "./gallery.js";

export { Failure };

const gallery = open();

async function open() {
  const info = await json("info.json");
  const names = Object.keys(info.sizes).filter((name) => !name.endsWith(".onnx"));
  const [items, ...files] = await Promise.all([json("items.json"), ...names.map((name) => bytes(name, info))]);
  return new Gallery(info, items, Object.fromEntries(names.map((name, i) => [name, files[i]])));
}

export const info = async () => (await gallery).info;

/** Hits of a search; `body` as the server's POST /api/search takes it. */
export async function search(body, signal) {
  const started = performance.now(), own = await gallery;
  const found = await own.search(body);
  signal?.throwIfAborted();
  return { ...found, took_ms: performance.now() - started };
}

export async function upload() {
  throw new Failure("This page can't search by files.", "Its collection behind `fusemix serve` can.");
}

/** Records of these keys, in their order; unknown keys are left out. */
export async function items(keys) {
  const own = await gallery;
  return keys.map((key) => own.places.get(key)).filter((at) => at !== undefined).map((at) => own.record(at));
}

let ready = null;
gallery.then((own) => { ready = own; }, () => {});

/** What is known of an item without asking. */
export function known(key) {
  const at = ready?.places.get(key);
  return at === undefined ? undefined : ready.record(at);
}

/** How many items have each value of a column, the most frequent first. */
export async function facets(column, where, to) {
  const own = await gallery, values = own.column(column), counts = new Map();
  const passes = where ? condition(where, own.kinds) : () => true;
  for (let at = 0; at < own.count; at++) {
    if ((to && own.modality(at) !== to) || !passes((name) => own.value(name, at))) continue;
    counts.set(values(at), (counts.get(values(at)) ?? 0) + 1);
  }
  const order = ([a, n], [b, m]) => m - n || (a === null ? -1 : b === null ? 1 : a < b ? -1 : 1);
  return [...counts].sort(order).slice(0, 1000).map(([value, count]) => ({ value, count }));
}

/** Positions of all items: x0, y0, x1, y1, … */
export const positions = async () => (await gallery).map;

export async function colours(column) {
  const own = await gallery, values = own.column(column);
  return classes(Array.from({ length: own.count }, (_, at) => values(at)), own.kinds.get(column) === "number");
}

/** The key of the item at place `at` of the map. */
export const keyAt = async (at) => (await gallery).items.key[at];
