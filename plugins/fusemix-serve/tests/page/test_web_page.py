"""The export `web` in Chromium, from a host of static files: it answers as the server does."""

from __future__ import annotations

import functools
import json
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from acting import settle, shown
from fusemix_serve import create_app
from fusemix_serve.snapshot import names, ranges
from starlette.testclient import TestClient

from fusemix_core.config import Part
from fusemix_core.errors import ConfigError
from fusemix_core.jobs.export import export
from fusemix_core.search import Collection

pytestmark = pytest.mark.browser

CALL = """async ([name, given]) => {
  const api = await import(new URL("static/js/api.js", document.baseURI));
  try {
    return {found: await api[name](...given)};
  } catch (error) {
    return {error: error.message};
  }
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def hosted(folder):
    """The address of a folder, as `python -m http.server` serves it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.fixture(scope="module")
def toys(models, index, tmp_path_factory):
    """(address, collection) of an export of toy items, without words."""
    collection = Collection.open(index, models["photos"])
    folder = tmp_path_factory.mktemp("toys") / "site"
    export(collection, Part("web", {"words": False}), folder)
    with hosted(folder) as url:
        yield url, collection


@pytest.fixture(scope="module")
def figures(sample_index, tmp_path_factory):
    """(address, collection) of an export of figures of the sample, with words."""
    folder = tmp_path_factory.mktemp("web") / "site"
    export(sample_index[0], Part("web", {"name": "Figures"}), folder)
    with hosted(folder) as url:
        yield url, sample_index[0]


def call(page, name, *given):
    """What a function of the page's api.js returns. Raises what it throws."""
    answer = page.evaluate(CALL, [name, list(given)])
    if "error" in answer:
        raise ConfigError(answer["error"])
    return answer["found"]


def asked(**more):
    return {"queries": [], "weights": [], "k": 10, "offset": 0, **more}


def test_words_find_the_same_ten_as_fusemix_search(show, figures):
    url, collection = figures
    page = show(url=url)
    assert page.inner_text("#name") == "Figures"
    texts = ["a map of the world", "  naïve café — 北京 Ωμέγα ", "x", " ".join(["word"] * 400)]
    texts += [one.item for one in collection.items(collection.keys("text")[::9])]
    for text in texts:
        for to in ("image", "text"):
            query = {"modality": "text", "text": text}
            found = call(page, "search", asked(queries=[query], weights=[1], to=to))["hits"]
            best = collection.search(collection.encode("text", text), "text", 10, target=to)
            assert [hit["key"] for hit in found] == [one.key for one in best], text
            scores = [one.score for one in best]
            np.testing.assert_allclose([hit["score"] for hit in found], scores, atol=2e-3)
            shares = [one.percentile for one in best]
            np.testing.assert_allclose([hit["percentile"] for hit in found], shares, atol=0.5)


def test_the_page_is_used_without_a_server(show, figures):
    page = show(url=figures[0])
    page.fill("#text", "a map of the world")
    page.press("#text", "Enter")
    page.wait_for_selector("#status:has-text('ms')")
    settle(page)
    page.click("label[for=to-image]")
    settle(page)
    first = shown(page)[0]
    size = page.locator(".card img").first.evaluate(
        "image => image.decode().then(() => image.naturalWidth)"
    )
    assert 0 < size <= 256
    page.locator(".card .front").first.click()
    assert "Its cosine with the query is" in page.inner_text("dialog#item")
    page.keyboard.press("Escape")
    page.locator(".card").first.press("m")
    settle(page)
    assert f"like={first}" in page.url and first not in shown(page)


def test_searches_are_those_of_the_server(show, toys):
    url, collection = toys
    page = show(url=url)
    keys = collection.overview().keys
    one, two, three = ({"key": keys[i]} for i in (0, 7, -1))
    area = [[-0.5, -0.5], [0.6, -0.5], [0.6, 0.3], [-0.5, 0.9]]
    searches = [
        asked(k=7, offset=3),
        asked(where="thing = 'car'", places=True),
        asked(within=area, places=True),
        asked(queries=[one], weights=[1]),
        asked(queries=[one], weights=[1], to="image", group_duplicates=True),
        asked(queries=[three], weights=[1], to="text", offset=5),
        asked(queries=[two], weights=[1], to="image", min_percentile=50, places=True),
        asked(queries=[two], weights=[1], to="image", where="year < 1930", within=area),
        asked(queries=[one, two], weights=[2, 0.5], to="image"),
        asked(queries=[one], weights=[1], minus=[keys[3], keys[4]], to="image"),
        asked(minus=[keys[3]], to="image"),
    ]
    with TestClient(create_app(collection, {}), base_url="http://localhost") as client:
        for body in searches:
            wanted = client.post("/api/search", json=body).json()
            found = call(page, "search", body)
            assert [h["key"] for h in found["hits"]] == [h["key"] for h in wanted["hits"]], body
            assert found["places"] == wanted["places"], body
            for here, there in zip(found["hits"], wanted["hits"], strict=True):
                assert {**here, **OWN} == {**there, **OWN}, body
                assert set(here["duplicates"]) >= set(there["duplicates"]), body
                if there["why"] is not None:
                    for name in ("cosine", "hubness"):
                        assert here["why"][name] == pytest.approx(there["why"][name], abs=1e-3)
                if len(body["queries"]) == 1 and not body.get("minus"):
                    assert here["score"] == pytest.approx(there["score"], abs=1e-3)
                    assert here["percentile"] == pytest.approx(there["percentile"], abs=0.5)


OWN = dict.fromkeys(("score", "percentile", "why", "duplicates", "thumb", "media"))
"""What differs, and is compared by itself."""


CONDITIONS = (
    "thing = 'car'", "thing != 'car'", "not thing = 'car'", "thing in ('car', 'house')",
    "thing not in ('car')", "thing like 'C%'", "thing not like '_ar'", "year > 1920",
    "year between 1910 and 1920.5", "year not between 1910 and 1920", "year is null",
    "year is not null and not year >= 1950", "not (year > 1920 or thing = 'car')",
    "(year < 1905 or year >= 1960) and thing is not null", '"thing" = \'house\'',
    "modality = 'image' and year <= 1903", "year = 1910 or year == 1911 or year <> 1912",
    "text like '%red%' and year in (1900, 1901, 1902.0)", "year > 1e3", "thing > 'car'",
    "thing = 5", "year is null or year > 1960", "text like '%.%'", "NOT thing IS NULL",
    "year = 'x'", "thing > 5", "smell = 1", "year >", "year like 'a'", "(year > 1", "year > 1)",
    "thing = \"car\"", "& 1", "and", "", "not " * 60 + "year > 1",
)  # fmt: skip


def test_conditions_mean_what_they_mean_to_the_index(show, toys):
    url, collection = toys
    page, view = show(url=url), collection.overview()
    for text in CONDITIONS:
        if not text:
            continue
        try:
            wanted = [view.keys[at] for at in np.flatnonzero(view.matching(text))]
        except ConfigError:
            with pytest.raises(ConfigError):
                call(page, "search", asked(where=text, k=200))
            continue
        found = call(page, "search", asked(where=text, k=200))
        assert [hit["key"] for hit in found["hits"]] == wanted, text
        assert found["total"] == len(wanted)


def test_facets_and_colours_are_those_of_the_index(show, toys):
    url, collection = toys
    page, view = show(url=url), collection.overview()
    for where, to in (("", ""), ("year > 1920", ""), ("", "image"), ("year > 1920", "text")):
        for column in ("thing", "year"):
            counted = collection.facets(column, where or None, to or None)
            found = call(page, "facets", column, where, to)
            assert [(one["value"], one["count"]) for one in found] == counted, (where, to, column)
    assert call(page, "colours", "year") == json.loads(json.dumps(ranges(view.values("year"))))
    for column in ("thing", "modality"):
        found, wanted = call(page, "colours", column), names(view.values(column))
        classes = [[one["names"][i] for i in one["of"]] for one in (found, wanted)]
        assert classes[0] == classes[1], column


def test_without_words_the_page_says_how_to_search(show, toys):
    page = show(url=toys[0])
    assert page.locator("#text").is_hidden()
    assert "More like this" in page.inner_text("#ask-note")
    assert page.inner_text("#status").endswith("items to search")
    page.click("#map-button")
    page.wait_for_selector(".legend li")
    page.locator(".card").first.press("m")
    settle(page)
    assert page.locator(".card .score b").count() > 0
