"""No page runs off a phone: each is laid out by Chromium, 390 pixels wide, and measured.

`test_site.py` has the short form, by the style sheet. `make browser`, or `pytest -m browser`.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sites import build

pytestmark = pytest.mark.browser

WIDTHS = (390, 1280)
HARNESS = """<!doctype html><body><pre id="found">unfinished</pre><script>
const pages = PAGES, widths = WIDTHS, found = {};
const scrolls = (e) => { for (; e; e = e.parentElement) {
  if (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX) && e.tagName !== "BODY"
      && e.tagName !== "HTML") return true; } return false; };
const measure = (page, width) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:800px;border:0`;
  frame.onload = () => setTimeout(() => {
    const inner = frame.contentDocument, root = inner.documentElement;
    const wide = [...inner.querySelectorAll(".md-content *")].filter((e) =>
      e.getBoundingClientRect().right > width + 1 && !scrolls(e) && e.offsetParent !== null);
    found[`${page} ${width}`] = [root.scrollWidth - root.clientWidth,
      wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 120))];
    frame.remove(); done();
  }, 150);
  frame.src = page; document.body.append(frame);
});
(async () => { for (const page of pages) for (const width of widths) await measure(page, width);
  document.getElementById("found").textContent = JSON.stringify(found); })();
</script></body>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(page and width) → pixels that the page is too wide, and the elements that stick out."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Install Chromium: apt-get install chromium"
    site = build(tmp_path_factory.mktemp("phone"))
    pages = sorted(f"/{p.parent.relative_to(site)}/" for p in site.rglob("index.html"))
    text = HARNESS.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS), 1)
    (site / "measure.html").write_text(text)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        dumped = subprocess.run(
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
                *("--window-size=1400,900", "--virtual-time-budget=600000"),
                f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
                f"http://127.0.0.1:{server.server_address[1]}/measure.html",
            ],
            capture_output=True,
            text=True,
            timeout=500,
        ).stdout
    finally:
        server.shutdown()
    found = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert found and found[1] != "unfinished", dumped[:500]
    results = json.loads(html.unescape(found[1]))
    assert len(results) == len(pages) * len(WIDTHS) and len(pages) > 60
    return results


def test_no_page_scrolls_sideways(measured):
    assert {where: one for where, one in measured.items() if one[0] > 0} == {}


def test_nothing_on_a_page_is_cut_off(measured):
    assert {where: one[1] for where, one in measured.items() if one[1]} == {}
