"""Makes the picture of the search page: `python docs/page_picture.py`. Needs Chromium.

It fits a model on the bundled sample, indexes the sample, serves it, and writes
`docs/pictures/page.webp`. `python docs/page_picture.py INDEX` shows an index that is there.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "pictures/page.webp"
COMMANDS = (
    "sample",
    "align --a efficientnet-lite0 --b minilm --data sample/pairs.csv --split-column split "
    "--out runs/mine",
    "index runs/mine --data sample/pairs.csv --out textbooks",
)
SEARCH = "?text=a+map+of+the+world&to=image&map=1&colour=book"
WIDTH, HEIGHT = 1380, 860


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) > 1:
            index = Path(sys.argv[1]).resolve()
        else:
            for command in COMMANDS:
                subprocess.run([*fusemix(), *command.split()], cwd=folder, check=True)
            index = folder / "textbooks"
        with serving(index) as url:
            picture = seen(url + SEARCH)
    picture.save(PICTURE, quality=84, method=6)
    print(f"{PICTURE}: {PICTURE.stat().st_size >> 10} KB")


def fusemix() -> list[str]:
    return [sys.executable, "-m", "fusemix_core.cli"]


@contextmanager
def serving(index: Path) -> Iterator[str]:
    """The address of a server of an index."""
    command = [*fusemix(), "serve", str(index), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines = (line for line in server.stdout if line.startswith("serving: "))
        yield next(lines).removeprefix("serving: ").strip()
        server.terminate()


def seen(url: str) -> Image.Image:
    """The page as Chromium shows it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Install Chromium: apt-get install chromium"
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(180_000)
        page.goto(url)
        page.wait_for_selector("html[data-ready]", state="attached")
        page.wait_for_selector(".legend li")
        page.reload()  # the time that it shows is that of a search with the model loaded
        page.wait_for_selector("html[data-ready]", state="attached")
        page.wait_for_selector(".legend li")
        page.wait_for_function("() => [...document.images].every((image) => image.complete)")
        page.wait_for_timeout(1500)
        data = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(data)).convert("RGB")


if __name__ == "__main__":
    main()
