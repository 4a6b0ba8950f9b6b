// One result: its image, sound or text, its score, and what can be done with it.

import { icon, iconButton, make, percent, title } from "./dom.js";

const KINDS = { image: "file", audio: "sound", video: "play" };
let player = null;  // one sound at a time

function play(event, record) {
  const button = event.currentTarget, playing = player && !player.paused && player.button === button;
  player?.pause();
  if (playing) return;
  player = new Audio(record.media);
  player.button = button;
  const show = (name) => button.querySelector("use").setAttribute("href", `#i-${name}`);
  player.addEventListener("pause", () => show("play"));
  player.addEventListener("ended", () => show("play"));
  show("stop");
  player.play().catch(() => show("play"));
}

/** The image of an item, or a drawing of its kind. */
export function picture(record, takes) {
  if (record.thumb) {
    const shown = make("img", { src: record.thumb, alt: title(record), loading: "lazy", decoding: "async" });
    shown.addEventListener("error", () => shown.replaceWith(icon(KINDS[takes] ?? "file")));
    return shown;
  }
  return icon(KINDS[takes] ?? "file");
}

/** The score as a share of random pairs; null while browsing. */
export function score(record) {
  if (record.percentile === null || record.percentile === undefined) return null;
  const bar = make("span", { class: "bar-of", "aria-hidden": "true" }, make("i"));
  bar.firstChild.style.width = `${record.percentile}%`;
  const explained = `Scores higher than ${percent(record.percentile)} of random pairs; score ${record.score.toFixed(3)}`;
  return make("span", { class: "score", title: explained }, bar,
    make("b", {}, percent(record.percentile)), make("span", { class: "hidden" }, " of random pairs score lower"));
}

/** What a card says below its image. */
function said(record, takes) {
  if (takes === "text" && !record.thumb) return make("p", { class: "words" }, title(record));
  // The image has the same text for who can't see it.
  return make("p", { class: "caption", "aria-hidden": record.thumb ? "true" : null }, title(record));
}

/** The buttons of an item. `act(name, record)` is called with "like", "add", "minus" or "save". */
export function actions(record, act, saved) {
  return make("span", { class: "acts" },
    iconButton("like", "More like this", () => act("like", record)),
    iconButton("plus", "Add to the query", () => act("add", record)),
    iconButton("minus", "Less like this", () => act("minus", record)),
    iconButton("star", saved ? "Saved: remove from the collection" : "Save in the collection",
      () => act("save", record), { "aria-pressed": String(saved), "data-save": record.key }));
}

/** One cell of the grid. */
export function card(record, takes, act, saved) {
  const sounds = takes === "audio" && record.media;
  const front = make("div", { class: `front ${record.thumb ? "" : "plain"} ${takes}`, onclick: () => act("open", record) },
    takes === "text" && !record.thumb ? null : picture(record, takes));
  const duplicates = record.duplicates?.length ?? 0;
  return make("div", { class: "card", role: "gridcell", tabindex: "-1", "data-key": record.key },
    front,
    sounds ? iconButton("play", `Play ${title(record)}`, (event) => play(event, record), { class: "icon play" }) : null,
    make("div", { class: "below", onclick: (event) => event.target.closest("button") || act("open", record) },
      said(record, takes),
      duplicates ? make("p", { class: "tag" }, `+ ${duplicates} near-duplicate${duplicates === 1 ? "" : "s"}`) : null),
    make("div", { class: "foot" }, score(record) ?? make("span", { class: "score" }), actions(record, act, saved)));
}
