"""No page runs off a phone: each is laid out by Chromium, 390 pixels wide, and measured.

`test_site.py` has the short form, by the style sheet. `make browser`, or `pytest -m browser`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sites import build

pytestmark = pytest.mark.browser

WIDTHS = (390, 1280)
HARNESS = """<!doctype html><body><script>
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
(async () => { for (const page of pages) await Promise.all(widths.map((w) => measure(page, w)));
  await fetch("/found", {method: "POST", body: JSON.stringify(found)}); })();
</script></body>"""

WIDE = "/too-wide/"
TOO_WIDE = """<!doctype html><div class="md-content"><div style="width:1500px">wide</div></div>"""


class Server(ThreadingHTTPServer):
    """Serves the site, and takes what the page of measurements sends."""

    def __init__(self, site: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(site)))
        self.arrived, self.found = threading.Event(), {}
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(SimpleHTTPRequestHandler):
    def do_POST(self) -> None:  # noqa: N802  the name that http.server calls
        self.server.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.arrived.set()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(page and width) → pixels that the page is too wide, and the elements that stick out."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Install Chromium: apt-get install chromium"
    site = build(tmp_path_factory.mktemp("phone"))
    (site / WIDE.strip("/")).mkdir()
    (site / WIDE.strip("/") / "index.html").write_text(TOO_WIDE)
    pages = sorted(f"/{p.parent.relative_to(site)}/" for p in site.rglob("index.html"))
    text = HARNESS.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS), 1)
    (site / "measure.html").write_text(text)
    server = Server(site)
    address = f"http://127.0.0.1:{server.server_address[1]}/measure.html"
    profile = tmp_path_factory.mktemp("profile")
    with open(profile / "log", "wb") as log:
        browser = subprocess.Popen(
            [
                *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--remote-debugging-port=0", "--window-size=1700,900"),
                *(f"--user-data-dir={profile}", address),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        assert server.arrived.wait(500), (profile / "log").read_text()[-2000:]
    finally:
        browser.terminate()
        browser.wait()
        server.shutdown()
    results = server.found
    assert len(results) == len(pages) * len(WIDTHS) and len(pages) > 60
    bad = {where: results.pop(where) for where in list(results) if where.startswith(WIDE)}
    assert all(one[0] > 0 and one[1] for one in bad.values()), bad  # it does see what is too wide
    return results


def test_no_page_scrolls_sideways(measured):
    assert {where: one for where, one in measured.items() if one[0] > 0} == {}


def test_nothing_on_a_page_is_cut_off(measured):
    assert {where: one[1] for where, one in measured.items() if one[1]} == {}
