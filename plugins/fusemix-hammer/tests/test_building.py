"""Fakes that are made of real pairs."""

import csv

import numpy as np
import pytest
import typer
from fusemix_hammer import fusemix_commands
from fusemix_hammer.building import KINDS, Build, build
from fusemix_hammer.changes import (
    AREA,
    MARGIN,
    altered,
    content_words,
    replaced,
    spliced,
    square,
)
from PIL import Image
from typer.testing import CliRunner

from fusemix_core.config import DataConfig
from fusemix_core.errors import ConfigError, DataError

TEXTS = ("A purple walrus juggles {} lanterns", "Seven {} engines cross the wooden bridge")


def noise(seed, size=64):
    """An image of coloured patches, which WebP changes little."""
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3))
    small = Image.fromarray(values.astype(np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """48 pairs in two books, each in a group of its own, and each of four colours."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = [("image", "text", "split", "book", "page", "licence")]
    for k in range(48):
        noise(k).save(folder / f"{k}.png")
        split = ("train", "train", "validation", "test")[k % 4]
        text = TEXTS[k % 2].format(f"colour{'abcdefgh'[k % 8]}ful")
        lines.append((f"{k}.png", f"{text} near tower{chr(97 + k // 2)}ing", split, k % 2, k, "CC"))
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def built(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "fakes"
    data = DataConfig((str(pairs),), split_column="split", group_by="page")
    build(data, out, Build(hard="book", keep=("licence",), size=64, seed=3))
    with (out / "pairs.csv").open() as file:
        return out, list(csv.DictReader(file))


def sources(pairs):
    with pairs.open() as file:
        return list(csv.DictReader(file))


def number(place):
    return int(place.rpartition(":")[2]) - 1


def test_every_kind_is_there_and_real_rows_are_as_they_were(pairs, built):
    _, rows = built
    real = sources(pairs)
    assert {kind for row in rows for kind in row["types"].split(";")} == {"real", *KINDS}
    for row in rows:
        fake = row["types"] != "real"
        assert row["real"] == str(int(not fake))
        if not fake:
            source = real[number(row["origin"])]
            assert row["text"] == source["text"] and row["box"] == ""
        assert row["licence"] == "CC"


def test_all_images_are_written_alike(built):
    out, rows = built
    for row in rows:
        with Image.open(out / row["image"]) as image:
            assert (image.format, image.size, image.mode) == ("WEBP", (64, 64), "RGB")


def test_boxes_and_words_are_those_that_were_changed(pairs, built):
    out, rows = built
    real = sources(pairs)
    for row in rows:
        source = real[number(row["origin"])]
        assert bool(row["box"]) == ("image_" in row["types"])
        if row["box"]:
            before = np.asarray(Image.open(pairs.parent / source["image"]), np.float32)
            after = np.asarray(Image.open(out / row["image"]).convert("RGB"), np.float32)
            left, top, right, bottom = (round(64 * float(x)) for x in row["box"].split(","))
            inside = np.zeros((64, 64), bool)
            inside[top:bottom, left:right] = True
            change = np.abs(after - before).mean(axis=2)
            assert change[inside].mean() > max(3.0, 1.5 * change[~inside].mean())
        flags = row["words"].split()
        assert len(flags) == len(row["text"].split())
        if "text_attribute" in row["types"]:
            both = zip(row["text"].split(), source["text"].split(), strict=True)
            changed = [a != b for a, b in both]
            assert [flag == "1" for flag in flags] == changed and 1 <= sum(changed) <= 3
        else:
            assert set(flags) == {"0"}


def test_donors_are_of_the_same_split_and_of_the_same_book_for_texts(pairs, built):
    _, rows = built
    real = sources(pairs)
    splits = {row["origin"]: row["split"] for row in rows}
    swapped = 0
    for row in rows:
        for donor in (row["image_donor"], row["text_donor"]):
            assert not donor or splits[donor] == row["split"]
        if "text_swap" in row["types"]:
            swapped += 1
            donor = real[number(row["text_donor"])]
            assert donor["book"] == real[number(row["origin"])]["book"]
            assert row["text"] == donor["text"] != real[number(row["origin"])]["text"]
    assert swapped


def test_the_seed_decides_everything(pairs, built, tmp_path):
    out, _ = built
    data = DataConfig((str(pairs),), split_column="split", group_by="page")
    how = {"hard": "book", "keep": ("licence",), "size": 64}
    build(data, tmp_path / "again", Build(**how, seed=3))
    files = sorted(p.relative_to(out) for p in out.rglob("*.*"))
    assert all((out / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    build(data, tmp_path / "other", Build(**how, seed=4))
    assert (out / "pairs.csv").read_bytes() != (tmp_path / "other/pairs.csv").read_bytes()


def test_regions_have_the_size_that_is_said_and_keep_off_the_border():
    draw = np.random.default_rng(0)
    for k in range(20):
        for found in (spliced(noise(k, 200), noise(99, 200), draw), altered(noise(k, 200), draw)):
            _, box = found
            area = (box.right - box.left) * (box.bottom - box.top)
            assert AREA[0] - 0.02 < area < AREA[1] + 0.02
            assert min(box.left, box.top, 1 - box.right, 1 - box.bottom) > MARGIN - 0.01


def test_changes_that_nobody_could_see_are_not_made():
    white, draw = Image.new("RGB", (64, 64), "white"), np.random.default_rng(0)
    assert altered(white, draw) is None and spliced(white, white, draw) is None


def test_content_words_are_replaced_by_content_words():
    text = "The Greek temple (marble) stands with four columns."
    wanted = ["greek", "temple", "marble", "stands", "four", "columns"]
    assert list(content_words(text).values()) == wanted
    draw = np.random.default_rng(0)
    for _ in range(10):
        changed, places = replaced(text, "About yellow submarines", draw)
        words = changed.split()
        assert 1 <= len(places) <= 2
        for place in places:
            assert words[place].strip("().").lower() in ("yellow", "submarines")
    assert replaced(text, "It is so", draw) is None


def test_an_image_is_cut_to_its_middle():
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("blue", (30, 0, 60, 30))
    assert np.asarray(square(wide, 32))[16, 16].tolist() == [0, 0, 255]
    assert square(wide, 32).size == (32, 32)


def test_the_command_makes_a_table(pairs, tmp_path):
    app = typer.Typer()
    app.callback()(lambda: None)  # so that the command keeps its name
    fusemix_commands(app)
    command = ["hammer-data", str(tmp_path / "fakes"), "--data", str(pairs), "--size", "32"]
    done = CliRunner().invoke(app, [*command, "--split-column", "split", "--limit", "12"])
    assert done.exit_code == 0, done.output
    assert "fusemix fuse --task manipulation" in done.output
    with (tmp_path / "fakes/pairs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12
    with pytest.raises(ConfigError, match="exists already"):
        build(DataConfig((str(pairs),)), tmp_path / "fakes", Build())
    with pytest.raises(DataError, match=r"no column 'boook' \(--hard boook\)"):
        build(DataConfig((str(pairs),)), tmp_path / "others", Build(hard="boook"))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Build(real=1.0)
