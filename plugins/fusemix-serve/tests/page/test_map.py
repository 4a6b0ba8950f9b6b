"""The map: drawn with WebGL, moved, coloured, and searched in."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from acting import settle, shown
from fake_server import inside
from PIL import Image

pytestmark = pytest.mark.browser


def pixels(page) -> np.ndarray:
    """The map as it is on the screen, [height, width, 3]."""
    page.wait_for_timeout(300)
    return np.asarray(
        Image.open(io.BytesIO(page.locator(".field").screenshot())).convert("RGB"), dtype=int
    )


def inked(image: np.ndarray) -> int:
    return int((np.abs(image - image[2, 2]).sum(2) > 60).sum())


def on_screen(page, server, at: int) -> tuple[float, float]:
    """Where a point is, by the page's own arithmetic for all points."""
    positions = server.positions
    box = page.locator(".field").bounding_box()
    low, high = positions.min(0), positions.max(0)
    scale = 0.92 * min(box["width"] / (high - low)[0], box["height"] / (high - low)[1])
    middle = (low + high) / 2
    x, y = (positions[at] - middle) * scale
    return box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 - y


def lonely(server) -> int:
    """A point that has no other nearby."""
    positions = server.positions
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return int(apart.min(1).argmax())


def test_the_map_draws_every_colour_and_keeps_the_address(show, server):
    page = show()
    page.click("#map-button")
    page.wait_for_selector(".legend li")
    assert page.locator(".legend li").all_inner_texts() == ["image", "text", "audio"]
    picture = pixels(page)
    assert inked(picture) > 2000
    blue = np.abs(picture - np.array([0x2C, 0x62, 0xB0])).sum(2) < 130
    orange = np.abs(picture - np.array([0xC0, 0x5A, 0x14])).sum(2) < 130
    assert blue.sum() > 500 and orange.sum() > 100
    page.get_by_label("Colour by").select_option("book")
    page.wait_for_selector(".legend li:has-text('chemistry-bundle')")
    assert "map=1" in page.url and "colour=book" in page.url


def test_wheel_drag_and_keys_move_the_map(show, server):
    page = show("?map=1")
    page.wait_for_selector(".legend li")
    before = pixels(page)
    box = page.locator(".field").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -800)
    zoomed = pixels(page)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 90, steps=4)
    page.mouse.up()
    moved = pixels(page)
    page.focus(".field")
    page.keyboard.press("ArrowRight")
    keyed = pixels(page)
    page.keyboard.press("0")
    page.mouse.move(5, 5)
    back = pixels(page)
    images = [before, zoomed, moved, keyed]
    for one, other in zip(images, images[1:], strict=False):
        assert (np.abs(one - other).sum(2) > 60).sum() > 200
    assert (np.abs(before - back).sum(2) > 60).mean() < 0.02


def test_a_point_tells_what_it_is_and_opens(show, server):
    page, at = show("?map=1"), lonely(server)
    page.wait_for_selector(".legend li")
    x, y = on_screen(page, server, at)
    page.mouse.move(x + 1, y + 1)
    page.wait_for_selector(".tip:visible")
    record = server.records[at]
    assert page.inner_text(".tip") in (record["text"] or record["item"])
    page.mouse.click(x + 1, y + 1)
    page.wait_for_selector("dialog#item[open]")
    assert f"open={record['key']}" in page.url


def test_a_drawn_area_is_searched_in(show, server):
    page = show("?map=1&text=cells")
    page.wait_for_selector(".legend li")
    box = page.locator(".field").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.get_by_role("button", name="Draw an area").click()
    page.mouse.move(x, y - 150)
    page.mouse.down()
    for angle in np.linspace(0, 2 * np.pi, 40):
        page.mouse.move(x + 150 * np.sin(angle), y - 150 * np.cos(angle))
    page.mouse.up()
    page.wait_for_selector(".chip:has-text('Inside an area')")
    settle(page)
    corners = server.searches[-1]["within"]
    assert 6 <= len(corners) <= 64
    found = shown(page)
    assert found and all(
        inside(server.positions[server.by_key[key]["at"]], corners) for key in found
    )
    total = sum(inside(point, corners) for point in server.positions)
    assert 0 < total < len(server.records)
    assert page.inner_text("#status").startswith(f"{total} result")
    page.get_by_role("button", name="Search everywhere").click()
    settle(page)
    assert "within" not in server.searches[-1]


def test_the_shown_part_can_be_searched_in_without_a_mouse(show, server):
    page = show("?map=1")
    page.wait_for_selector(".legend li")
    page.focus(".field")
    for _ in range(5):
        page.keyboard.press("+")
    page.get_by_role("button", name="Search only in what the map shows").press("Enter")
    page.wait_for_selector(".chip:has-text('Inside an area')")
    settle(page)
    assert len(server.searches[-1]["within"]) == 4
    assert 0 < len(shown(page)) < 48


MARKED = """async () => {
  const { Points } = await import("/static/js/points.js"), { mark } = Points.prototype;
  Points.prototype.mark = function marking(places) {
    globalThis.marked = places;
    return mark.call(this, places);
  };
}"""


def test_all_results_above_the_cut_off_are_marked(show, server):
    page = show("?text=cells&min=50")
    page.evaluate(MARKED)
    page.click("#map-button")
    page.wait_for_selector(".legend li")
    settle(page)
    places = server.search(server.searches[-1])["places"]
    assert len(places) > 48  # more than are loaded
    assert page.evaluate("marked") == places
    page.focus("#least")
    page.keyboard.press("ArrowRight")
    settle(page)
    fewer = server.search(server.searches[-1])["places"]
    assert len(fewer) < len(places) and page.evaluate("marked") == fewer


def test_items_that_pass_the_filters_are_marked_without_a_query(show, server):
    page = show("?is.book=chemistry-bundle")
    page.evaluate(MARKED)
    page.click("#map-button")
    page.wait_for_selector(".legend li")
    settle(page)
    own = [r["at"] for r in server.records if r["columns"]["book"] == "chemistry-bundle"]
    assert page.evaluate("marked") == own


def test_a_million_points_are_drawn_and_moved(show, server):
    rng = np.random.default_rng(0)
    server.positions = np.concatenate(
        [rng.normal(m, 0.6, (250_000, 2)) for m in ((-2, 0), (2, 1), (0, 3), (1, -2))]
    )
    page = show()
    start = time.monotonic()
    page.click("#map-button")
    page.wait_for_selector(".legend li", timeout=60_000)
    assert inked(pixels(page)) > 30_000
    assert time.monotonic() - start < 40  # drawn by the processor here; milliseconds on a GPU
    frames = page.evaluate("""async () => {
      const field = document.querySelector(".field"), start = performance.now();
      for (let i = 0; i < 10; i++) {
        const turned = {deltaY: -40, clientX: 400, clientY: 500, cancelable: true};
        field.dispatchEvent(new WheelEvent("wheel", turned));
        await new Promise(requestAnimationFrame);
      }
      return (performance.now() - start) / 10;
    }""")
    assert frames < 1500
    found = page.evaluate("""async () => {
      const { Nearest, around } = await import("/static/js/geometry.js");
      const positions = Float32Array.from({length: 400000}, () => Math.random());
      const near = new Nearest(positions, around(positions));
      return Array.from({length: 20}, () => {
        const [x, y] = [Math.random(), Math.random()];
        let best = -1, least = 0.05 ** 2;
        for (let i = 0; i < positions.length / 2; i++) {
          const d = (positions[2 * i] - x) ** 2 + (positions[2 * i + 1] - y) ** 2;
          if (d < least) [best, least] = [i, d];
        }
        return [near.find(x, y, 0.05), best];
      });
    }""")
    assert all(one == other for one, other in found)
