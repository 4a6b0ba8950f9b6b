"""Chromium with a fake microphone, and pages of the fake server that may not ask another origin."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

sys.path.append(str(Path(__file__).parent))

from fake_server import SAMPLE, FakeServer, tone

COUNT = 50


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Install Chromium: apt-get install chromium"
    sound = tmp_path_factory.mktemp("microphone") / "tone.wav"
    sound.write_bytes(tone())
    flags = [
        "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}", "--autoplay-policy=no-user-gesture-required",
    ]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.shutdown()


@pytest.fixture
def show(chromium, server):
    """Opens a page. At the end, none may have asked another origin or met an error of its own."""
    contexts, wrong = [], []
    own = urlsplit(server.url).netloc

    def asked(request):
        url = urlsplit(request.url)
        if url.scheme not in ("blob", "data") and url.netloc != own:
            wrong.append(f"asked {request.url}")

    def told(message):
        # What the server refuses is in the log of the browser too: that isn't the page's error.
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    def open_page(path: str = "", ready: bool = True, url: str = server.url, **settings):
        nonlocal own
        own = urlsplit(url).netloc
        settings = {
            "viewport": {"width": 1280, "height": 900},
            "permissions": ["microphone"],
            **settings,
        }
        context = chromium.new_context(**settings)
        contexts.append(context)
        context.on("request", asked)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", told)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url + path)
        if ready:
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    open_page.wrong = wrong
    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="session")
def sample_index(tmp_path_factory):
    """(a collection of some of the sample's pairs with the starter's model, the rows)."""
    import fusemix_core
    from fusemix_core.config import DataConfig
    from fusemix_core.search import Collection

    folder = tmp_path_factory.mktemp("figures")
    with open(SAMPLE / "pairs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::30][:COUNT]
    for row in rows:
        (folder / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLE / row["image"], folder / row["image"])
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        model = fusemix_core.load("starter:figures", device="cpu")
        data = DataConfig(source=(str(folder / "pairs.csv"),))
        made = Collection.create(folder / "index", model, data)
    return made, rows
