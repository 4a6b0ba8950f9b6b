"""The site builds without a warning, and its formulae are drawn."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_formulae_are_mathml(site):
    page = (site / "concepts/maths/index.html").read_text()
    assert page.count("<math") > 20 and "arithmatex" not in page


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for wanted in ('src="http', "fonts.googleapis", "cdn."):
            assert wanted not in page.read_text(), (page, wanted)


def test_reference_shows_signatures_and_docstrings(site):
    page = (site / "reference/python/index.html").read_text()
    for name in ("FusedModel", "from_pretrained", "Encoder", "collate", "PairedLatents", "Gallery"):
        assert name in page


def test_every_public_name_is_in_the_reference(site):
    import fusemix_core
    from fusemix_core import errors, hookspecs, interfaces, testing

    inventory = site.joinpath("objects.inv").read_bytes().split(b"\n", 4)[4]
    documented = {
        line.split(" ", 1)[0].rpartition(".")[2]
        for line in zlib.decompress(inventory).decode().splitlines()
    }
    public = set(fusemix_core.__all__) | set(testing.__all__)
    for module in (errors, hookspecs, interfaces):
        public |= {
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
        }
    assert public - documented == set()
