"""`icons.py`, on a package of six sets, and on damaged and hostile ones."""

import csv
import gzip
import io
import json
import re
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from example_runs import EXAMPLES, STARTER, needs, recalls

SMALL = Path(__file__).parent / "icons" / "iconify-json-small.tgz"
CIRCLE = '<circle cx="12" cy="12" r="12"/>'


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch):
    """The modules beside an example can be imported, as when it runs."""
    monkeypatch.syspath_prepend(EXAMPLES)


def package(path, icons, licence="MIT", collections=None, extra=()):
    """A tarball with the one set `own`, and further members, (TarInfo, content)."""
    info = {"total": len(icons), "license": {"spdx": licence}, "author": {"name": "A"}}
    members = {
        "package.json": {"version": "1.0.0"},
        "collections.json": collections or {"own": info},
        "json/own.json": {"prefix": "own", "width": 24, "height": 24, "icons": icons},
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, value in members.items():
            content = json.dumps(value).encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry, content in extra:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def icon(words, name="x", set="own"):
    from icon_sets import Icon

    return Icon(set, name, words, "", "", "MIT", "A", "", "<svg/>")


def rows_of(out):
    return [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)])
@needs(*STARTER, "skia")
def test_icons_from_the_package_to_a_sheet(run, tmp_path, whole):
    """With few of the encoders' layers, or all, which find more."""
    out = tmp_path / "icons"
    given = "icons.py", SMALL, "--out", out, "--search", "chess king", "weather"
    printed = run(*given, short=not whole)
    for line in (
        "372 icons in 6 sets",
        "363 used (363 drawn now)",
        "0 not in the sample",
        "1 broken",
        "3 left out: hidden",
        "3 left out: licence CC-BY-NC-4.0",
        "2 left out: logos",
    ):
        assert re.search(rf"^ *{re.escape(line)}", printed, re.MULTILINE), printed
    assert (out / "broken.txt").read_text() == "broken/torn-page\n"

    rows = rows_of(out)
    splits = {name: {r["group"] for r in rows if r["split"] == name} for name in ("train", "test")}
    assert len(rows) == 363 and not splits["train"] & splits["test"]
    assert {(r["set"], r["licence"]) for r in rows} == {
        ("lucide", "ISC"),
        ("tabler", "MIT"),
        ("material-symbols", "Apache-2.0"),
    }
    assert all(r["author"] and (out / r["image"]).is_file() for r in rows)

    # The test split has 24 names that are not in training. Then words that are, and words that
    # no icon has.
    directions = recalls(printed)
    text_to_image, image_to_text = (3, 1.6) if whole else (2.5, 1.3)
    for direction, times in (("text->image", text_to_image), ("image->text", image_to_text)):
        _, r10, chance = directions[direction]
        assert r10 > times * chance
    king, weather = (
        re.search(rf"^{query}: (.*)$", printed, re.MULTILINE)[1].split(", ")
        for query in ("chess king", "weather")
    )
    if whole:
        assert king[0] == "chess king" and king[1].startswith("chess ") and weather[0] == "tornado"
    else:
        assert "chess king" in king and "tornado" in weather
        assert sum(hit.startswith("chess ") for hit in king) > 4
    with open(out / "sheet.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [r["search"] for r in listed] == ["chess king"] * 9 + ["weather"] * 9
    assert {"lucide", "tabler"} <= {r["set"] for r in listed} and all(r["licence"] for r in listed)

    made = {path: path.stat().st_mtime_ns for path in out.glob("images-*/*/*.png")}
    printed = run("icons.py", SMALL, "--out", out, "--search", "travel", short=not whole)
    assert "363 used (0 drawn now)" in printed and "Fitting" not in printed
    assert made == {path: path.stat().st_mtime_ns for path in out.glob("images-*/*/*.png")}
    assert len(list(csv.DictReader((out / "sheet.csv").open()))) == 9


@needs("skia")
def test_a_greater_limit_keeps_the_icons_of_a_smaller_one(tmp_path, capsys):
    from icon_sets import Package
    from icons import write_pairs

    found = []
    for limit in (20, 40):
        write_pairs(Package(SMALL), tmp_path / "pairs.jsonl", limit, seed=1)
        found.append([row["image"] for row in rows_of(tmp_path)])
    few, more = found
    assert len(few) == 20 and len(more) == 40 and set(few) < set(more)
    printed = capsys.readouterr().out
    assert "40 used (20 drawn now)" in printed and "324 not in the sample" in printed


def test_a_folder_gives_the_icons_of_its_tarball(tmp_path):
    from icon_sets import Package

    with tarfile.open(SMALL) as tar:
        tar.extractall(tmp_path, filter="data")
    tarball = sorted(icon.id for icon in Package(SMALL).icons())
    for folder in (tmp_path, tmp_path / "package"):
        assert sorted(icon.id for icon in Package(folder).icons()) == tarball


@pytest.mark.parametrize(
    "name, words, style",
    [
        ("arrow-left", "arrow left", ""),
        ("arrow-left-filled", "arrow left", "filled"),
        ("heart-broken", "heart broken", ""),
        ("two-tone-bell-20", "bell", "two-tone 20"),
        ("cloud-03", "cloud", "03"),
        ("waving-hand-medium-dark-skin-tone", "waving hand", "medium-dark-skin-tone"),
        ("woman-medium-dark", "woman", "medium-dark"),
        ("outline", "outline", ""),
        ("folder2", "folder 2", ""),
    ],
)
def test_a_name_is_words_and_style(name, words, style):
    from icon_sets import Names

    icons = dict.fromkeys([name, "a-20", *(f"other-{letter}" for letter in "abcdefghijklmnop")])
    data = {"prefixes": {"two-tone": "Two-tone"}, "suffixes": {"": "Regular"}, "icons": icons}
    data["icons"] |= dict.fromkeys(f"b-{i}x" for i in range(10))
    assert Names(data).split(name) == (words, style)


def test_one_concept_is_on_one_side_whatever_the_order_of_its_words():
    same = [icon("arrow left"), icon("left arrow"), icon("arrow left 2", set="other")]
    assert len({(i.concept, i.split) for i in same}) == 1
    assert icon("100").concept == "100"
    splits = [icon(f"thing number{i}").split for i in range(1000)]
    assert 70 < splits.count("test") < 130 and 70 < splits.count("validation") < 130


@needs("skia")
def test_a_hostile_package_writes_nothing_outside(tmp_path, capsys):
    from icon_sets import Package
    from icons import write_pairs

    link = tarfile.TarInfo("package/json/own-link.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    extra = [
        (tarfile.TarInfo("package/../../evil.json"), b"{}"),
        (tarfile.TarInfo("/tmp/evil.json"), b"{}"),
        (tarfile.TarInfo("package/json/../../evil.json"), b"{}"),
        (tarfile.TarInfo("package/json/unlisted.json"), b"{}"),
        (link, b""),
    ]
    icons = {"../../evil": {"body": CIRCLE}, "/evil": {"body": CIRCLE}, "good": {"body": CIRCLE}}
    source = package(tmp_path / "hostile.tgz", icons, extra=extra)
    write_pairs(Package(source), tmp_path / "out" / "deep" / "pairs.jsonl", 0, seed=0)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == [
        "hostile.tgz",
        "out/deep/broken.txt",
        "out/deep/images-1.0.0/own/good.png",
        "out/deep/pairs.jsonl",
    ]
    printed = capsys.readouterr().out
    assert "3 icons in 1 sets" in printed and "2 left out: unusual name" in printed
    assert "no licence is listed: unlisted\n" in printed


def test_a_set_with_a_name_that_leads_outside_is_not_read(tmp_path):
    from icon_sets import Package

    listed = {"../own": {"license": {"spdx": "MIT"}, "total": 1}}
    source = package(tmp_path / "odd.tgz", {"good": {"body": CIRCLE}}, collections=listed)
    with pytest.raises(SystemExit, match=r"lacks the sets \.\./own"):
        list(Package(source).icons())


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good[: len(good) // 2],
        lambda good: good[:5000] + bytes(200) + good[5200:],
        lambda good: b"<html>not found</html>",
        lambda good: b"",
        lambda good: gzip.compress(gzip.decompress(good)[:40_960]),
    ],
    ids=["cut", "overwritten", "html", "empty", "cut before it was packed"],
)
def test_a_damaged_tarball_is_an_error_that_says_where_to_get_another(tmp_path, damage):
    from icon_sets import Package

    source = tmp_path / "iconify.tgz"
    source.write_bytes(damage(SMALL.read_bytes()))
    with pytest.raises(SystemExit, match=r"(?s)iconify\.tgz can't be used.*npm pack @iconify/json"):
        list(Package(source).icons())


def test_a_missing_tarball_is_an_error_that_says_where_to_get_it(tmp_path):
    from icon_sets import Package

    with pytest.raises(SystemExit, match=r"(?s)There is no .*npm pack @iconify/json"):
        Package(tmp_path / "iconify.tgz")


def test_without_skia_its_package_is_named(monkeypatch):
    from icon_images import load_skia

    monkeypatch.setitem(sys.modules, "skia", None)
    with pytest.raises(SystemExit, match="pip install skia-python"):
        load_skia()


@needs("skia")
@pytest.mark.parametrize("width, height", [(24, 24), (512, 256), (10, 30)])
def test_the_encoders_crop_keeps_the_whole_drawing(width, height):
    from icon_images import draw, load_skia

    box = f'<rect width="{width}" height="{height}" fill="#ff0000"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{box}</svg>'
    image = draw(load_skia(), svg)
    rows, columns = np.nonzero((np.asarray(image) == (255, 0, 0)).all(axis=2))
    scale = 224 / max(width, height)
    assert image.size == (256, 256) and np.asarray(image)[0, 0].tolist() == [255, 255, 255]
    for found, size in ((columns, width * scale), (rows, height * scale)):
        assert abs(found.min() - (256 - size) / 2) <= 1
        assert abs(found.max() + 1 - (256 + size) / 2) <= 1


@needs("skia")
@pytest.mark.parametrize(
    "svg",
    ["", "<svg", '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24"/>', "<a/>"],
    ids=["nothing", "torn", "blank", "no SVG"],
)
def test_what_shows_nothing_is_no_image(svg):
    from icon_images import draw, load_skia

    assert draw(load_skia(), svg) is None
