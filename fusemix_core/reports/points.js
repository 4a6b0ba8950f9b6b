// The maps of a report: shows the item under the pointer or, by arrow keys, the next one; changes
// colours. All texts are set as text, never as markup.
"use strict";
for (const map of document.querySelectorAll(".map")) {
  const svg = map.querySelector("svg"), tip = map.querySelector(".tip");
  const legend = map.querySelector(".legend > span"), choice = map.querySelector("select");
  const points = [...svg.querySelectorAll(".p")], lines = [...svg.querySelectorAll(".lines path")];
  const colours = JSON.parse(map.dataset.colours);
  let shown = -1;

  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  const colour = (title) => {
    const { names, of } = colours[title];
    points.forEach((point, i) => { point.setAttribute("class", `p s${of[i]}`); });
    legend.replaceChildren(...names.map((name, i) => {
      const key = element("span", "", "key");
      key.append(element("i", "", `s${i}`), name);
      return key;
    }));
    show(shown);
  };

  const show = (i) => {
    points[shown]?.classList.remove("on");
    shown = i;
    for (const line of lines) {
      line.classList.toggle("on", line.dataset.ends.split(" ").includes(String(i)));
    }
    tip.hidden = i < 0;
    if (i < 0) return;
    const point = points[i], { modality, place, text, image, facts } = point.dataset;
    point.classList.add("on");
    tip.replaceChildren(element("b", modality));
    if (image) {
      const picture = element("img");
      picture.alt = "";
      picture.src = image;
      tip.append(picture);
    }
    if (text) tip.append(element("div", text));
    tip.append(element("div", facts ? `${place} · ${facts}` : place, "place"));
    const box = point.getBoundingClientRect(), around = map.getBoundingClientRect();
    const room = around.width - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, box.left - around.left + 14))}px`;
    tip.style.top = `${box.bottom - around.top + 6}px`;
  };

  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const next = ([x, y]) => {
    if (shown < 0) return 0;
    const centre = (point) => {
      const box = point.getBBox();
      return [box.x + box.width / 2, box.y + box.height / 2];
    };
    const [fromX, fromY] = centre(points[shown]);
    let best = shown, least = Infinity;
    points.forEach((point, i) => {
      const [toX, toY] = centre(point), along = (toX - fromX) * x + (toY - fromY) * y;
      const aside = Math.abs((toX - fromX) * y) + Math.abs((toY - fromY) * x);
      if (i !== shown && along > 0 && along + 2 * aside < least) {
        best = i;
        least = along + 2 * aside;
      }
    });
    return best;
  };

  for (const point of points) point.querySelector("title").remove();  // the tip has its text
  svg.addEventListener("pointerover", (event) => {
    const i = points.indexOf(event.target);
    if (i >= 0) show(i);
  });
  map.addEventListener("pointerleave", () => show(-1));
  map.addEventListener("focusout", () => show(-1));
  map.addEventListener("keydown", (event) => {
    if (event.target !== map) return;
    if (event.key === "Escape") show(-1);
    if (!(event.key in ways)) return;
    event.preventDefault();
    show(next(ways[event.key]));
  });
  choice.parentElement.hidden = Object.keys(colours).length < 2;
  choice.addEventListener("change", () => colour(choice.value));
}
