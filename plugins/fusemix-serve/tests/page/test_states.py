"""What the page shows while it waits, when nothing is there and when something is wrong."""

from __future__ import annotations

import pytest
from acting import DROP, ask, give, settle, shown
from fake_server import MARKUP, FakeServer, sample_records, tone

pytestmark = pytest.mark.browser


def refusal(status: int, message: str, hint: str = "", code: str = "") -> tuple[int, dict]:
    return status, {"error": {"message": message, "hint": hint, "code": code}}


def test_a_caption_with_markup_stays_text(show, server):
    for record in server.records:
        record["item"] = record["item"] if record["modality"] == "image" else MARKUP
        record["text"] = MARKUP
        record["columns"]["book"] = MARKUP
    page = show("?map=1&colour=book")
    assert page.locator(".card .caption").first.inner_text() == MARKUP
    page.locator(".card .front").first.click()
    assert page.locator("dialog#item .words").inner_text() == MARKUP
    page.keyboard.press("Escape")
    page.locator(".card").first.press("m")
    settle(page)
    assert MARKUP in page.locator(".chip .name").inner_text()
    page.fill("#text", MARKUP)
    page.press("#text", "Enter")
    settle(page)
    page.wait_for_timeout(300)
    assert page.evaluate("window.attacked") is None
    assert page.locator("main img[src=x], main script, aside img").count() == 0


def test_an_empty_index_says_how_to_fill_it(chromium, show):
    empty = FakeServer([])
    page = show(url=empty.url)
    assert "This index is empty" in page.inner_text("#message")
    assert "fusemix index update" in page.inner_text("#message")
    empty.shutdown()


def test_nothing_found_offers_the_ways_out(show, server):
    page = show("?text=zzz&min=99.9&is.book=none")
    assert "Nothing found" in page.inner_text("#message")
    page.get_by_role("button", name="Clear the filters").click()
    settle(page)
    page.get_by_role("button", name="Show results below 99.9%").click()
    settle(page)
    assert len(shown(page)) == 48


def test_an_error_is_shown_with_its_hint_and_leaves_nothing_stale(show, server):
    page = show()
    server.answers["/api/search"] = refusal(
        400, "There is no column 'yaer'.", "Columns: book, year."
    )
    ask(page, "cells")
    assert "There is no column 'yaer'." in page.inner_text("#message")
    assert "Columns: book, year." in page.inner_text("#message")
    assert page.locator(".card:visible").count() == 0
    del server.answers["/api/search"]
    page.get_by_role("button", name="Start over").click()
    settle(page)
    assert len(shown(page)) == 48 and page.locator("#message").is_hidden()


def test_a_server_that_is_gone_can_be_asked_again(show, server):
    page = show()
    page.route("**/api/search", lambda route: route.abort())
    page.fill("#text", "cells")
    page.press("#text", "Enter")
    page.wait_for_selector("#message:has-text('The server doesn\\'t answer.')")
    page.unroute("**/api/search")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".card:visible")


def test_a_busy_server_is_asked_again(show, server):
    page = show()
    refused = []

    def busy(route):
        if refused:
            route.continue_()
        else:
            refused.append(True)
            route.fulfill(
                status=429, headers={"Retry-After": "1"}, json={"error": {"message": "Busy."}}
            )

    page.route("**/api/search", busy)
    page.fill("#text", "cells")
    page.press("#text", "Enter")
    page.wait_for_selector("#status:has-text('460 results')")
    assert refused == [True]


def test_a_missing_token_says_where_the_link_is(show, server):
    server.answers["/api/info"] = refusal(401, "No token.")
    page = show(ready=False)
    page.wait_for_selector("#message:has-text('Open the link that')")


def test_a_forgotten_upload_can_be_left_out(show, server):
    page = show()
    with page.expect_response("**/api/search"):
        give(page, DROP, "tone.wav", "audio/wav", tone())
    server.answers["/api/search"] = refusal(404, "This file is no longer kept.", code="upload_gone")
    page.reload()
    page.wait_for_selector("#message:has-text('Drop the file once more')")
    del server.answers["/api/search"]
    page.get_by_role("button", name="Search without the file").click()
    settle(page)
    assert len(shown(page)) == 48 and "file." not in page.url


def test_a_refused_upload_says_why(show, server):
    page = show()
    server.answers["/api/uploads"] = refusal(413, "The file is too large.", "The limit is 20 MB.")
    give(page, DROP, "tone.wav", "audio/wav", tone())
    page.wait_for_selector("#ask-note:has-text('The file is too large. The limit is 20 MB.')")
    assert page.locator("#chips .chip").count() == 0


def test_a_slow_search_is_seen_and_the_newest_wins(show, server):
    page = show()
    server.delay = 1.2
    page.fill("#text", "cells")
    page.press("#text", "Enter")
    page.wait_for_selector("#busy", state="visible")
    assert page.locator("#results").get_attribute("aria-busy") == "true"
    server.delay = 0
    page.fill("#text", "war")
    page.press("#text", "Enter")
    settle(page)
    newest = shown(page)
    page.wait_for_timeout(1500)
    assert shown(page) == newest
    assert newest == [hit["key"] for hit in server.search(server.searches[-1])["hits"]]
    assert page.locator("#busy").is_hidden()


def test_a_browser_that_keeps_nothing_still_collects(show, server):
    page = show()
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    page.locator(".card").first.hover()
    page.locator(".card [data-save]").first.click()
    page.click("#saved-button")
    assert "export them before you close it" in page.inner_text("dialog#saved")
    assert "1 item" in page.inner_text("dialog#saved")


def test_an_index_that_takes_only_images_has_no_field_for_words(chromium, show):
    only = FakeServer([record for record in sample_records(20) if record["modality"] == "image"])
    info = only.info()
    only.answers["/api/info"] = (
        200,
        {**info, "query": [{"name": "image", "takes": "image"}], "columns": []},
    )
    page = show(url=only.url)
    assert page.locator("#text").is_hidden() and page.locator("#record").is_hidden()
    assert page.locator("#pick").is_visible() and page.locator("#filters").is_hidden()
    only.shutdown()
