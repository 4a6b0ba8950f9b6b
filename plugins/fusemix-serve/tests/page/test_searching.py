"""Searches by words, images, sounds and items, as people do them in the page."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from acting import DROP, PASTE, ask, give, settle, shown
from fake_server import SAMPLE, tone, wav_header

pytestmark = pytest.mark.browser


def last(server) -> dict:
    return server.searches[-1]


def image(server) -> tuple[str, bytes]:
    record = server.records[0]
    return record["item"], (SAMPLE / record["item"]).read_bytes()


def test_words_find_and_their_address_finds_again(show, server):
    page = show()
    ask(page, "a map of the world")
    assert last(server)["queries"] == [{"modality": "text", "text": "a map of the world"}]
    found = shown(page)
    best = server.search(last(server))["hits"]
    assert found == [hit["key"] for hit in best]
    assert "map" in page.locator(".card").first.text_content().lower()
    again = show(page.url.removeprefix(server.url))
    assert (again.input_value("#text"), shown(again)) == ("a map of the world", found)


def test_back_shows_the_search_before(show, server):
    page = show()
    ask(page, "cells")
    cells = shown(page)
    ask(page, "war")
    assert shown(page) != cells
    page.go_back()
    page.wait_for_function("() => document.getElementById('text').value === 'cells'")
    settle(page)
    assert shown(page) == cells


@pytest.mark.parametrize("way", [DROP, PASTE], ids=["dropped", "pasted"])
def test_an_image_that_is_given_to_the_page_is_searched_by(way, show, server):
    page, (name, data) = show(), image(server)
    with page.expect_response("**/api/search"):
        give(page, way, name, "image/webp", data)
    (kept,) = server.uploads.values()
    assert kept == ("image/webp", data)
    assert last(server)["queries"] == [{"modality": "image", "upload": next(iter(server.uploads))}]
    assert (
        page.locator(".chip img").evaluate("image => image.decode().then(() => image.naturalWidth)")
        > 0
    )
    assert page.locator("#drop").is_hidden()


def test_a_dropped_sound_is_searched_by(show, server):
    page = show()
    with page.expect_response("**/api/search"):
        give(page, DROP, "tone.wav", "audio/wav", tone())
    assert list(server.uploads.values()) == [("audio/wav", tone())]
    assert last(server)["queries"][0]["modality"] == "audio"


def test_a_recorded_sound_is_sent_as_wav(show, server):
    page = show()
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_timeout(1500)
    with page.expect_response("**/api/search"):
        page.click("#record")
    ((kind, data),) = server.uploads.values()
    assert (kind, wav_header(data)) == ("audio/wav", (1, 16000, 16))
    samples = np.frombuffer(data[44:], "<i2")
    assert len(samples) * 2 == int.from_bytes(data[40:44], "little")
    assert 8000 < len(samples) < 60_000
    spectrum = np.abs(np.fft.rfft(samples))
    loudest = np.argmax(spectrum) * 16000 / len(samples)
    assert abs(loudest - 440) < 10  # the tone that the microphone plays


def test_a_file_that_the_index_cannot_take_is_refused_with_a_reason(show, server):
    page = show()
    give(page, DROP, "table.xlsx", "application/vnd.ms-excel", b"xx")
    page.wait_for_selector("#ask-note:has-text('can\\'t be searched by table.xlsx')")
    give(page, DROP, "clip.mp4", "video/mp4", b"xx")
    page.wait_for_selector("#ask-note:has-text('can\\'t be searched by a video')")
    assert server.uploads == {}


def test_more_like_this_excludes_and_combines(show, server):
    page = show()
    ask(page, "cells")
    first, second, third = shown(page)[:3]
    page.locator(".card").first.hover()
    page.locator(".card").first.get_by_role("button", name="More like this").click()
    settle(page)
    assert last(server)["queries"] == [{"key": first}]
    assert page.input_value("#text") == ""
    page.keyboard.press("/")
    ask(page, "cells")
    page.locator(f".card[data-key='{second}']").hover()
    page.locator(f".card[data-key='{second}']").get_by_role("button", name="Less like this").click()
    settle(page)
    page.locator(f".card[data-key='{third}']").hover()
    page.locator(f".card[data-key='{third}']").get_by_role(
        "button", name="Add to the query"
    ).click()
    settle(page)
    page.locator(".chip select").nth(1).select_option("double")
    settle(page)
    asked = last(server)
    assert asked["queries"] == [
        {"modality": "text", "text": "cells"},
        {"key": first},
        {"key": third},
    ]
    assert asked["weights"] == [1, 1, 2]
    assert asked["minus"] == [second]
    page.get_by_role("button", name="No longer exclude").click()
    settle(page)
    assert "minus" not in last(server)


def test_words_can_be_kept_as_parts_of_the_query(show, server):
    page = show()
    page.fill("#text", "blood")
    page.click("#add")
    settle(page)
    ask(page, "cells")
    assert [one["text"] for one in last(server)["queries"]] == ["cells", "blood"]
    page.fill("#text", "")
    settle(page)
    page.press("#text", "Backspace")
    settle(page)
    assert last(server)["queries"] == []


def test_the_cut_off_leaves_out_what_scores_lower(show, server):
    page = show()
    ask(page, "a map of the world")
    page.focus("#least")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    settle(page)
    assert last(server)["min_percentile"] == 90
    percents = page.locator(".card .score b").all_text_contents()
    assert percents and all(float(p.strip("> %")) >= 90 for p in percents)
    assert "min=90" in page.url


def test_near_duplicates_are_folded_until_asked_for(show, server):
    page = show()
    ask(page, "a map")
    assert last(server)["group_duplicates"] is True
    page.get_by_label("Fold near-duplicates").uncheck()
    settle(page)
    assert last(server)["group_duplicates"] is False and "fold=0" in page.url


def test_the_dialog_says_why_and_lists_near_duplicates(show, server):
    page = show("?text=a+map")
    page.locator(".card:has(.tag) .front").first.click()
    dialog = page.locator("dialog#item")
    assert "Why it matched" in dialog.inner_text()
    assert "of random pairs score lower" in dialog.inner_text()
    assert dialog.locator(".shares li").count() == 3
    dialog.locator(".copies button").first.click()
    twin = page.url.split("open=")[1]
    page.go_back()
    dialog.wait_for(state="hidden")
    assert twin in server.by_key


def test_the_counts_of_a_filter_are_of_the_kind_that_is_searched(show, server):
    page = show()
    page.click("label[for=to-text]")
    settle(page)
    texts = [r for r in server.records if r["modality"] == "text"]
    own = sum(r["columns"]["book"] == "chemistry-bundle" for r in texts)
    assert 0 < own < sum(r["columns"]["book"] == "chemistry-bundle" for r in server.records)
    page.wait_for_selector(f"#filters label:has-text('chemistry-bundle'):has-text('{own}')")


def test_filters_become_one_expression(show, server):
    server.records[3]["columns"]["book"] = "people's history"
    page = show()
    page.get_by_role("button", name="1 more").first.click()
    page.get_by_label("people's history").check()
    settle(page)
    assert last(server)["where"] == "book = 'people''s history'"
    assert shown(page) == [server.records[3]["key"]]
    page.get_by_label("chemistry-bundle").check()
    page.get_by_label("from").fill("2010")
    page.get_by_label("from").press("Enter")
    settle(page)
    assert (
        last(server)["where"]
        == "book in ('people''s history', 'chemistry-bundle') and year >= 2010"
    )
    again = show(page.url.removeprefix(server.url))
    assert (
        last(server)["where"]
        == "book in ('people''s history', 'chemistry-bundle') and year >= 2010"
    )
    again.get_by_role("button", name="Clear all").click()
    settle(again)
    assert "where" not in last(server)


def test_collections_are_kept_and_exported(show, server):
    server.records[0]["text"] = '=HYPERLINK("http://x")'
    page = show()
    for at in (0, 2):
        page.locator(".card").nth(at).hover()
        page.locator(".card [data-save]").nth(at).click()
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.locator(".card [data-save][aria-pressed=true]").count() == 2
    page.click("#saved-button")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export Saved as CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"))))
    assert [row["key"] for row in rows] == [server.records[0]["key"], server.records[2]["key"]]
    assert rows[0]["book"] == server.records[0]["columns"]["book"]
    assert rows[0]["text"] == '\'=HYPERLINK("http://x")'
    page.get_by_role("button", name="Show", exact=True).click()
    settle(page)
    assert shown(page) == [row["key"] for row in rows]
    page.get_by_role("button", name="Back to the search").click()
    settle(page)
    assert len(shown(page)) == 48


def test_all_results_are_exported_not_only_those_shown(show, server):
    page = show("?text=cells&to=image")
    with page.expect_download() as download:
        page.click("#export")
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"))))
    assert len(rows) == sum(record["modality"] == "image" for record in server.records)
    assert float(rows[0]["percentile"]) >= float(rows[-1]["percentile"])


def test_show_more_adds_the_next_results(show, server):
    page = show("?text=cells")
    before = shown(page)
    page.click("#more")
    page.wait_for_function("() => document.querySelectorAll('.card').length === 96")
    after = shown(page)
    assert after[:48] == before and len(set(after)) == 96


def test_a_total_that_is_too_large_ends_with_the_last_results(show, server):
    search = server.search
    server.search = lambda asked: {**search(asked), "total": 9999}
    page = show("?text=cells&is.split=validation")
    expected = sum(record["columns"]["split"] == "validation" for record in server.records)
    for _ in range(9):
        if page.locator("#more").is_hidden():
            break
        page.click("#more")
        settle(page)
    assert len(shown(page)) == expected and page.locator("#more").is_hidden()


def test_every_state_is_read_back_from_its_address(show):
    page = show()
    kept = page.evaluate("""async () => {
      const { read, write, EMPTY } = await import("/static/js/state.js");
      const states = [
        {}, {text: "a & b = c", typed: "text", min: 99.9, fold: false, map: true, colour: "a=b"},
        {queries: [{modality: "q.x", text: "2*3", weight: 1}, {key: "ab", weight: 0.5},
                   {modality: "image", upload: "u1", name: "a~b.png", weight: 2}],
         minus: ["k1", "k2"]},
        {facets: {"a.b": {values: ["x", "y&z"]}, year: {from: 0, to: -2.5}}, where: "a = 'b'"},
        {within: [[0.5, 1], [-2, 3.25], [4, 4]], saved: "Mine", open: "k"},
      ].map((changes) => ({...EMPTY, ...changes}));
      const text = (state) => JSON.stringify({...state});
      return states.map((state) => [text(state), text(read(write(state)))]);
    }""")
    for written, read in kept:
        assert written == read


def test_an_address_that_makes_no_sense_still_shows_the_page(show):
    page = show(
        "?min=x&within=1,2,3&is.=a&from.year=abc&q.=&like=&file.image=&open=nothing&colour=none&to=zz"
    )
    assert page.locator("#grid, #message").count() == 2
