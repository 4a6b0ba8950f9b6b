"""What the tests of the page do in it."""

from __future__ import annotations

import base64

DROP = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type}));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const settings = {dataTransfer: transfer, bubbles: true, cancelable: true};
    document.body.dispatchEvent(new DragEvent(kind, settings));
  }
}"""
PASTE = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type}));
  const settings = {clipboardData: transfer, bubbles: true, cancelable: true};
  document.dispatchEvent(new ClipboardEvent("paste", settings));
}"""


def give(page, script: str, name: str, kind: str, data: bytes) -> None:
    """Drops or pastes a file."""
    page.evaluate(script, [name, kind, base64.b64encode(data).decode()])


def ask(page, words: str) -> None:
    with page.expect_response("**/api/search"):
        page.fill("#text", words)
        page.press("#text", "Enter")
    settle(page)


def settle(page) -> None:
    """Waits until no search is under way and its results are shown."""
    page.wait_for_selector("#results[aria-busy=false]")
    page.wait_for_timeout(50)


def shown(page) -> list[str]:
    """Keys of the cards, in order."""
    return page.eval_on_selector_all(".card", "cards => cards.map((card) => card.dataset.key)")
