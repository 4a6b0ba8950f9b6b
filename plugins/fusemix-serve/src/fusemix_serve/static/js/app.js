// Starts the page: asks what the server has, makes the parts and lets them follow the state.

import { info as ask, search } from "./api.js";
import { Collections, CollectionsDialog } from "./collections.js";
import { csv, save } from "./csv.js";
import { counted, find, make } from "./dom.js";
import { Facets } from "./facets.js";
import { Grid } from "./grid.js";
import { ItemDialog } from "./item.js";
import { MapView } from "./map.js";
import { Query, typed } from "./query.js";
import { asks, body, Results } from "./results.js";
import { Store } from "./state.js";
import { Tools } from "./tools.js";
import { filtered } from "./where.js";

const EXPORTED = 2000;  // results in a CSV at most

function failed(error) {
  const again = make("button", { type: "button", onclick: () => location.reload() }, "Try again");
  find("message").replaceChildren(make("h2", {}, error.message), make("p", {}, error.hint ?? ""), again);
  find("message").hidden = false;
}

function named(info) {
  find("name").textContent = info.name || "fusemix";
  const kinds = info.modalities.map((one) => one.name).join(", ");
  find("ask-note").textContent = info.note ?? "";
  find("about").textContent = `${counted(info.count, "item")}${kinds ? ` · ${kinds}` : ""}`;
}

function retitle(state, info) {
  const what = state.saved || [state.text, ...state.queries.map((query) => query.text ?? query.name)].filter(Boolean).join(" + ");
  document.title = [what, info.name || "fusemix"].filter(Boolean).join(" · ");
}

/** Fetches the results, further pages too, and saves them as CSV. */
async function exported(store, info, results) {
  const button = find("export");
  button.disabled = true;
  try {
    let hits = results.hits;
    while (!store.state.saved && hits.length < Math.min(results.total, EXPORTED)) {
      const found = await search({ ...body(store.state, info, hits.length), k: 200 });
      if (!found.hits.length) break;
      hits = [...hits, ...found.hits];
    }
    save(csv(hits.slice(0, EXPORTED), info.columns), `${info.name || "fusemix"} results.csv`);
  } catch (error) {
    find("status").textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

function shortcuts(grid, map) {
  find("help-button").addEventListener("click", () => find("help").showModal());
  find("help").addEventListener("click", (event) => { if (event.target === find("help")) find("help").close(); });
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest("input:not([type=checkbox], [type=radio], [type=range]), select, textarea");
    if (event.target === find("text") && ["Escape", "ArrowDown"].includes(event.key)) {
      if (event.key === "Escape") event.target.blur();
      else grid.focus();
      event.preventDefault();
      return;
    }
    if (writes || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const does = { "/": () => find("text").focus(), "?": () => find("help").showModal(), g: () => map.toggle() }[event.key];
    if (does) {
      event.preventDefault();
      does();
    }
  });
}

async function start() {
  let info;
  try {
    info = await ask();
  } catch (error) {
    failed(error);
    return;
  }
  info.typed = typed(info.query);
  const store = new Store(), takesOf = new Map(info.modalities.map((one) => [one.name, one.takes]));
  const takes = (modality) => takesOf.get(modality) ?? modality;
  const collections = new Collections(info.name, (key, saved) => (key ? grid.mark(key, saved) : grid.show(results.hits)));
  const query = new Query(store, info);
  const does = {
    like: (record) => query.like(record), add: (record) => query.addItem(record), minus: (record) => query.exclude(record),
    open: (record) => store.set({ open: record.key }), save: (record) => collections.toggle(record.key),
  };
  const act = (name, record) => does[name](record), isSaved = (key) => collections.has(key);
  const grid = new Grid(find("grid"), takes, act, isSaved);
  const map = new MapView(store, info);
  const results = new Results(store, info, grid, collections, (hits, state, places) => map.mark(places ?? hits.map((hit) => hit.at), asks(state) || filtered(state)));
  const item = new ItemDialog(store, takes, act, isSaved, () => results.hits);
  new CollectionsDialog(collections, store, info);
  new Tools(store, info);
  new Facets(store, info);
  named(info);
  retitle(store.state, info);
  store.listen((state) => retitle(state, info));
  find("home").addEventListener("click", (event) => { event.preventDefault(); location.assign(location.pathname); });
  find("export").addEventListener("click", () => exported(store, info, results));
  shortcuts(grid, map);
  await results.load();
  if (store.state.open) item.show(store.state.open);
  document.documentElement.dataset.ready = "true";
}

start();
