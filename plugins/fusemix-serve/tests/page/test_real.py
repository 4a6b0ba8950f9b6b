"""The page with the real server, an index of the bundled sample, and one that takes sounds."""

from __future__ import annotations

import csv
import io
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from acting import DROP, ask, give, settle, shown
from fake_server import SAMPLE, inside

pytestmark = pytest.mark.browser


@contextmanager
def serving(collection, name):
    """The address of a server of a collection, in a thread of this process."""
    import uvicorn
    from fusemix_serve.app import create_app

    config = uvicorn.Config(create_app(collection, {}, name=name), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def figures(sample_index):
    """(address of a server, rows) of some of the sample's pairs, with the starter's model."""
    collection, rows = sample_index
    with serving(collection, "Figures") as url:
        yield url, rows


@pytest.fixture(scope="module")
def sounds(world, models):
    """The address of a server of images, texts and sounds, with toy encoders."""
    from fusemix_core.config import DataConfig
    from fusemix_core.search import Collection

    data = DataConfig(source=(str(world / "data" / "pairs.csv"),))
    collection = Collection.create(world / "sounds.index", models["photos"], data)
    with serving(collection, "Sounds") as url:
        yield url


def test_words_find_images_of_the_sample(show, figures):
    url, rows = figures
    page = show(url=url)
    assert page.inner_text("#status") == f"{2 * len(rows)} items to search"
    page.click("label[for=to-image]")
    settle(page)
    ask(page, "a map of the world")
    alts = page.eval_on_selector_all(".card img", "images => images.map((image) => image.alt)")
    assert any("map" in alt.lower() for alt in alts[:3])
    size = page.locator(".card img").first.evaluate(
        "image => image.decode().then(() => image.naturalWidth)"
    )
    assert 0 < size <= 256
    page.locator(".card .front").first.click()
    dialog = page.locator("dialog#item")
    assert "Its cosine with the query is" in dialog.inner_text()
    assert dialog.locator(".stage img").evaluate(
        "image => image.decode().then(() => image.naturalWidth)"
    )


def test_an_image_of_the_sample_finds_itself(show, figures):
    url, rows = figures
    page = show(url=url)
    data = (SAMPLE / rows[7]["image"]).read_bytes()
    with page.expect_response("**/api/search") as answered:
        give(page, DROP, "it.webp", "image/webp", data)
    assert answered.value.ok
    settle(page)
    page.click("label[for=to-image]")
    settle(page)
    assert page.locator(".card img").first.get_attribute("alt") == rows[7]["text"]
    first = shown(page)[0]
    page.locator(".card").first.press("x")
    settle(page)
    assert first not in shown(page)


def test_filters_facets_and_export_agree_with_the_table(show, figures):
    url, rows = figures
    page = show(url=url)
    book = rows[0]["book"]
    of_it = 2 * sum(row["book"] == book for row in rows)
    page.get_by_label(book).check()
    settle(page)
    assert page.inner_text("#status") == f"{of_it} items match the filters"
    with page.expect_download() as download:
        page.click("#export")
    exported = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"))))
    assert len(exported) == of_it and {row["book"] for row in exported} == {book}


def test_a_wrong_expression_is_explained(show, figures):
    url, _ = figures
    page = show("?where=bok+%3D+%27x%27", url=url)
    assert "bok" in page.inner_text("#message")


def test_the_map_and_its_area(show, figures):
    url, rows = figures
    page = show("?map=1&colour=book", url=url)
    page.wait_for_selector(".legend li")
    with page.expect_response("**/api/search") as answered:
        page.focus(".field")
        for _ in range(6):
            page.keyboard.press("+")
        page.get_by_role("button", name="Search only in what the map shows").press("Enter")
    settle(page)
    corners = answered.value.request.post_data_json["within"]
    points = np.frombuffer(page.request.get(f"{url}api/map").body(), "<f4").reshape(-1, 2)
    expected = sum(inside(point, corners) for point in points)
    assert len(points) == 2 * len(rows) and 0 < expected < len(points)
    assert page.inner_text("#status").startswith(f"{expected} item")


def test_a_recorded_sound_finds_something(show, sounds):
    page = show(url=sounds)
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_timeout(1200)
    with page.expect_response("**/api/search") as answered:
        page.click("#record")
    settle(page)
    assert answered.value.ok, answered.value.text()
    assert page.locator(".card .score b").count() > 0
