"""The page without a mouse, and for those who don't see it."""

from __future__ import annotations

import pytest
from acting import ask, settle, shown
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.browser


def focused(page) -> str:
    return page.evaluate("document.activeElement.dataset.key ?? document.activeElement.id")


def test_a_search_from_the_first_key_to_the_last(show, server):
    page = show()
    page.keyboard.press("/")
    page.keyboard.type("a map of the world")
    with page.expect_response("**/api/search"):
        page.keyboard.press("Enter")
    settle(page)
    found = shown(page)
    page.keyboard.press("ArrowDown")
    assert focused(page) == found[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    columns = page.locator("#grid [role=row]").first.locator(".card").count()
    assert columns > 1 and focused(page) == found[1 + columns]
    page.keyboard.press("Enter")
    dialog = page.locator("dialog#item")
    assert dialog.is_visible()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => location.search.includes('open={found[2 + columns]}')")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.wait_for_function("() => !location.search.includes('open=')")
    page.keyboard.press("x")
    settle(page)
    assert server.searches[-1]["minus"] == [found[1 + columns]]
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("s")
    assert (
        page.locator(".card").first.locator("[data-save]").get_attribute("aria-pressed") == "true"
    )
    page.keyboard.press("m")
    settle(page)
    assert [list(query) for query in server.searches[-1]["queries"]] == [["key"]]
    assert focused(page) == shown(page)[0]


def test_question_mark_shows_the_keys_and_typing_one_does_not(show):
    page = show()
    page.keyboard.press("?")
    assert page.locator("dialog#help").is_visible()
    page.keyboard.press("Escape")
    page.focus("#text")
    page.keyboard.type("what?mg/")
    assert page.input_value("#text") == "what?mg/"
    assert page.locator("dialog#help").is_hidden() and page.locator("#map").is_hidden()


def test_tab_reaches_one_cell_and_then_its_buttons(show):
    page = show()
    assert page.locator(".card[tabindex='0']").count() == 1
    page.locator(".card").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.title") == "More like this"


def test_the_last_row_loads_the_next_results(show):
    page = show("?text=cells")
    page.locator(".card").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.querySelectorAll('.card').length === 96")


def test_rows_of_the_grid_are_those_on_the_screen(show):
    page = show()
    rows = page.eval_on_selector_all(
        "#grid [role=row]",
        """rows => rows.map(({children}) =>
             new Set([...children].map((c) => Math.round(c.getBoundingClientRect().top))).size)""",
    )
    assert set(rows) == {1}
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_timeout(200)
    assert page.locator("#grid [role=row]").first.locator(".card").count() < 4


def test_an_image_is_named_by_its_caption(show, server):
    page = show("?text=a+map")
    record = server.by_key[shown(page)[0]]
    assert page.locator(".card img").first.get_attribute("alt") == record["text"]


def test_results_are_announced(show):
    page = show()
    ask(page, "cells")
    assert page.locator("[role=status]#status").inner_text().startswith("460 results")


STATES = {
    "browse": ("", None),
    "results and map": ("?text=a+map&map=1&is.book=chemistry-bundle&min=50", None),
    "dialog": ("?text=a+map", ".card .front"),
    "collections": ("", "#saved-button"),
    "help": ("", "#help-button"),
    "nothing": ("?text=a&is.book=none", None),
    "texts": ("?to=text&text=cells", None),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_serious(state, scheme, show):
    path, click = STATES[state]
    page = show(path, color_scheme=scheme, reduced_motion="reduce")
    if click:
        page.locator(click).first.click()
    page.wait_for_timeout(300)
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:160] for node in one["nodes"][:3]]) for one in found] == []


@pytest.mark.parametrize("path", ["", "?text=a+map&map=1&minus=x", "?to=audio&text=a"])
def test_the_page_fits_a_phone(path, show):
    page = show(path, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    wide = page.evaluate("""() => {
      const out = [...document.querySelectorAll("body *")].filter((e) => e.offsetParent
        && !e.closest(".hidden, .sprite, .skip")
        && e.getBoundingClientRect().right > innerWidth + 1);
      const scrolls = document.documentElement.scrollWidth - innerWidth;
      return [scrolls, out.slice(0, 3).map((e) => e.outerHTML.slice(0, 120))];
    }""")
    assert wide == [0, []]
    small = page.evaluate("""() => [...document.querySelectorAll("button, select")]
        .filter((e) => e.offsetParent && !e.classList.contains("link"))
        .filter((e) => e.offsetWidth < 24 || e.offsetHeight < 24)
        .map((e) => e.outerHTML.slice(0, 120))""")
    assert small == []


def test_the_dialog_and_filters_open_on_a_phone(show):
    page = show(viewport={"width": 390, "height": 800}, is_mobile=True, has_touch=True)
    page.get_by_role("button", name="Filters").tap()
    page.get_by_label("chemistry-bundle").check()
    settle(page)
    page.locator(".card .front").first.tap()
    box = page.locator("dialog#item").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
