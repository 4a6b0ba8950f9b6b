// Files beside the page.

import { Failure } from "./failure.js";

const HOME = new URL("../../data/", import.meta.url);

async function response(name) {
  let found;
  try {
    found = await fetch(new URL(name, HOME));
  } catch {
    found = null;
  }
  if (!found?.ok) throw new Failure(`The file data/${name} can't be loaded.`, "A browser loads it over http only, not from a folder.", true);
  return found;
}

export const json = async (name) => (await response(name)).json();

/** A file that is in parts, as one: its bytes. */
export async function bytes(name, { sizes, part }) {
  const whole = new Uint8Array(sizes[name]);
  const count = Math.max(1, Math.ceil(whole.length / part));
  await Promise.all(Array.from({ length: count }, async (_, i) => {
    whole.set(new Uint8Array(await (await response(`${name}.${i}`)).arrayBuffer()), i * part);
  }));
  return whole;
}
