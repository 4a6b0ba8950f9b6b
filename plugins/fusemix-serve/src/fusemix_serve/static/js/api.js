// The server's answers: JSON or bytes, and one kind of error that says what to do next.

/** A request that failed. `hint` is a sentence for the user; `retry` says whether trying again may help. */
export class Failure extends Error {
  constructor(message, hint = "", code = "", status = 0) {
    super(message);
    Object.assign(this, { hint, code, status, retry: status === 0 || status === 429 || status >= 500 });
  }
}

const PATIENCE = 3;  // tries of a request that the server is too busy for
const cache = new Map();  // key → record, whatever was seen

const pause = (ms, signal) => new Promise((done, failed) => {
  const timer = setTimeout(done, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); failed(signal.reason); });
});

async function failure(response) {
  let told = {};
  try {
    told = (await response.json()).error ?? {};
  } catch { /* not from fusemix: a proxy's page, or cut off */ }
  if (response.status === 401) {
    return new Failure("This server asks for a token.", "Open the link that `fusemix serve` printed.", "token", 401);
  }
  return new Failure(told.message ?? `The server answered ${response.status}.`, told.hint ?? "",
    told.code ?? "", response.status);
}

async function request(path, options = {}) {
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await fetch(path, { credentials: "same-origin", ...options });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Failure("The server doesn't answer.", "Is `fusemix serve` still running?");
    }
    if (response.ok) return response;
    if (response.status !== 429 || attempt === PATIENCE) throw await failure(response);
    const seconds = Number(response.headers.get("Retry-After")) || attempt;
    await pause(Math.min(seconds, 5) * 1000, options.signal);
  }
}

const json = async (path, options) => (await request(path, options)).json();
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, v]) => v !== "" && v !== undefined));

export const info = () => json("api/info");

/** Hits of a search; `body` as POST /api/search takes it. */
export async function search(body, signal) {
  const found = await json("api/search", {
    method: "POST", signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  });
  for (const hit of found.hits) cache.set(hit.key, hit);
  return found;
}

/** Gives the server a file to search by; returns its id. */
export async function upload(file, modality) {
  const headers = { "Content-Type": file.type || "application/octet-stream" };
  const path = `api/uploads?${query({ modality })}`;
  return (await json(path, { method: "POST", body: file, headers })).upload;
}

/** Records of these keys, in their order; keys that the server no longer has are left out. */
export async function items(keys) {
  const missing = keys.filter((key) => !cache.has(key));
  for (let at = 0; at < missing.length; at += 200) {
    const records = await json(`api/items?${query({ keys: missing.slice(at, at + 200).join(",") })}`);
    for (const record of records) cache.set(record.key, record);
  }
  return keys.map((key) => cache.get(key)).filter(Boolean);
}

/** What is known of an item without asking. */
export const known = (key) => cache.get(key);

export const facets = (column, where, to) => json(`api/facets?${query({ column, where, to })}`);

/** Positions of all items: x0, y0, x1, y1, … */
export async function positions() {
  const bytes = await (await request("api/map")).arrayBuffer();
  return new Float32Array(bytes);
}

export const colours = (column) => json(`api/map/colours?${query({ column })}`);

const pages = new Map(), PAGE = 1000;

/** The key of the item at place `at` of the map. */
export async function keyAt(at) {
  const offset = at - at % PAGE;
  if (!pages.has(offset)) {
    const asked = json(`api/map/keys?${query({ offset, count: PAGE })}`);
    pages.set(offset, asked);
    asked.catch(() => pages.delete(offset));
  }
  return (await pages.get(offset))[at - offset];
}
