"""The site builds without a warning, and its formulae are drawn."""

import zlib

import pytest
from sites import ROOT, build


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


@pytest.mark.slow
def test_formulae_are_mathml(site):
    page = (site / "concepts/maths/index.html").read_text()
    assert page.count("<math") > 20 and "arithmatex" not in page


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for wanted in ('src="http', "fonts.googleapis", "cdn."):
            assert wanted not in page.read_text(), (page, wanted)


@pytest.mark.slow
def test_reference_shows_signatures_and_docstrings(site):
    page = (site / "reference/python/index.html").read_text()
    for name in ("FusedModel", "from_pretrained", "Encoder", "collate", "PairedLatents", "Gallery"):
        assert name in page


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_missing_page_says_where_to_go_on(site):
    page = (site / "404.html").read_text()
    assert "does not exist" in page
    for name in ("tutorial", "how-to/data", "troubleshooting", "reference/cli"):
        assert f'href="/{name}/"' in page and (site / name / "index.html").exists()


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text()
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if page not in nav} == set()


@pytest.mark.slow
def test_figures_can_be_read_on_a_dark_page(site):
    """Each is drawn for both, or has a light ground there."""
    style = (site / "style.css").read_text()
    assert '[data-md-color-scheme="slate"] .md-typeset img[src$=".svg"]' in style
    home = (site / "index.html").read_text()
    assert "methods-light.svg#only-light" in home and "methods-dark.svg#only-dark" in home


@pytest.mark.slow
def test_what_is_wide_scrolls_or_breaks_on_a_phone(site):
    """The short form of `test_phone.py`, which measures each page in a browser."""
    style = (site / "style.css").read_text()
    for rule in ("overflow-x: auto", "max-width: 100%", "overflow-wrap: anywhere"):
        assert rule in style
    for page in site.rglob("*.html"):
        assert 'name="viewport" content="width=device-width' in page.read_text(), page
