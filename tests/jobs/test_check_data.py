"""`fusemix data check`: what is in a data set, what is not read, and what looks wrong."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.config import DataConfig
from fusemix_core.errors import DataError
from fusemix_core.jobs.check_data import check_data

TOYS = Path(__file__).parents[1] / "toys.py"
CASES = Path(__file__).parents[1] / "data" / "cases"


def call(*args) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["data", "check", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def write(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    with open(folder / "pairs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "pairs.csv"


def picture(path: Path, number: int) -> str:
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path.name


@pytest.fixture
def rows(tmp_path):
    """Thirty good pairs in `tmp_path`, two of them validation and three test."""
    names = [picture(tmp_path / f"{i:02}.{'png' if i % 3 else 'jpg'}", i) for i in range(30)]
    splits = ["train"] * 25 + ["val"] * 2 + ["test"] * 3
    texts = [f"a block of colours, number {i}" for i in range(30)]
    keys = ("image", "text", "split")
    return [dict(zip(keys, row, strict=True)) for row in zip(names, texts, splits, strict=True)]


def check(tmp_path, rows, *args) -> tuple[int, dict]:
    path = write(tmp_path, rows)
    code, out, _ = call(path, "--split-column", "split", "--json", *args)
    return code, json.loads(out)


def found_in(found: dict) -> dict[str, int]:
    return {one["what"]: one["count"] for one in found["findings"]}


def test_items_are_counted_by_type_and_split(tmp_path, rows):
    code, found = check(tmp_path, rows)
    assert code == 0 and not found["problems"] and not found["findings"] and not found["unread"]
    assert found["pairs"] == {"train": 25, "validation": 2, "test": 3}
    assert found["items"]["image"] == {
        ".png": {"all": 20, "train": 16, "validation": 2, "test": 2},
        ".jpg": {"all": 10, "train": 9, "validation": 0, "test": 1},
    }
    assert found["items"]["text"]["text"]["all"] == 30
    assert found["rows"]["seen"] == found["rows"]["used"] == 30
    assert found["decoded"] == {"image": 30}


def test_black_constant_and_silent_items(tmp_path, rows):
    Image.new("RGB", (9, 9)).save(tmp_path / "black.png")
    Image.new("L", (9, 9), 200).save(tmp_path / "grey.png")
    rows[0]["image"], rows[1]["image"] = "black.png", "grey.png"
    wave = np.sin(np.arange(800) / 9)
    for i, row in enumerate(rows):
        row["audio"] = f"{i}.wav"
        soundfile.write(tmp_path / row["audio"], wave * (i + 1) / 40 if i else 0 * wave, 8000)
    code, found = check(tmp_path, rows)
    assert code == 0 and found["decoded"] == {"image": 30, "audio": 30}
    assert found_in(found) == {"black items": 1, "of one colour items": 1, "silent items": 1}
    assert {one["example"].rpartition("/")[2] for one in found["findings"]} == {
        "black.png", "grey.png", "0.wav"
    }  # fmt: skip


def test_suspicious_and_long_texts_repeats_and_overlaps(tmp_path, rows):
    rows[0]["text"], rows[1]["text"] = "nan", "[a, b"
    rows[2]["text"], rows[3]["text"] = "{'a': 1}", "word " * 60
    rows[28]["image"] = rows[4]["image"]
    rows.append(dict(rows[5]))
    shutil.copy(tmp_path / "06.jpg", tmp_path / "same.jpg")
    rows.append({"image": "same.jpg", "text": "another text", "split": "train"})
    encoders = ["--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText"]
    code, found = check(tmp_path, rows, *encoders)
    assert code == 0
    assert found_in(found) == {
        "rows that repeat others": 1,
        "items with the content of another": 1,
        "texts: missing": 1,
        "texts: brackets": 1,
        f"texts that {TOYS}:ToyText probably cuts": 1,
    }
    assert found["overlaps"] == {"train and test": {"image": 1}}
    assert found["rows"]["repeated"] == 1 and found["rows"]["merged"] == 1


def test_what_is_not_read_is_grouped_by_its_reason(tmp_path, rows):
    for i in (3, 4):
        rows[i]["image"] = f"gone-{i}.png"
    (tmp_path / "05.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    code, found = check(tmp_path, rows, "--max-bad", "0.2")
    assert code == 0
    assert [(one["count"], one["bad"]) for one in found["unread"]] == [(2, True), (1, True)]
    assert "does not exist" in found["unread"][0]["reason"]
    assert "git lfs pull" in found["unread"][1]["reason"]
    assert "row 6" in found["unread"][1]["example"]


def test_exit_2_only_if_a_run_would_fail(tmp_path, rows):
    rows[3]["image"] = "gone.png"
    assert check(tmp_path, rows, "--max-bad", "0.05")[0] == 0
    code, found = check(tmp_path, rows)
    assert code == 2 and "--max-bad" in found["problems"][0]
    rows[3]["image"] = "04.png"
    for row in rows:
        row["split"] = "test"
    code, found = check(tmp_path, rows)
    assert code == 2
    assert found["problems"][0].startswith("The train split has 0 pairs")
    for i, row in enumerate(rows):
        row |= {"split": ["train", "val"][i % 2], "text": "one text"}
    code, found = check(tmp_path, rows)
    assert code == 2 and "one latent" in found["problems"][0]


def test_items_that_can_not_be_decoded_make_a_run_fail(tmp_path, rows):
    (tmp_path / "05.png").write_bytes(b"not an image")
    path = write(tmp_path, rows)
    code, out, err = call(path, "--split-column", "split")
    assert code == 2 and "1 of 30 rows" in err and "not an image" in out.replace("\n", " ")


def test_a_sample_is_decoded_and_all_with_the_option(tmp_path, rows):
    Image.new("RGB", (9, 9)).save(tmp_path / "black.png")
    rows[7]["image"] = "black.png"
    config = DataConfig((str(write(tmp_path, rows)),), split_column="split")
    part = check_data(config, sample=10)
    assert part.decoded == {"image": 10}
    assert check_data(config, sample=10).as_dict() == part.as_dict()
    whole = check_data(config, sample=None)
    assert whole.decoded == {"image": 30} and [f.count for f in whole.findings] == [1]
    for row in rows:
        (tmp_path / row["image"]).write_bytes(b"no image " + row["image"].encode())
    (problem,) = check_data(replace(config, max_bad=0.5), sample=10).problems
    assert problem.startswith("100.0% of 10 image items that were tried can't be decoded")


def test_a_folder_and_what_it_holds():
    code, out, _ = call(CASES / "02-folder-same-stem", "--json", "--validation-fraction", "0.3")
    found = json.loads(out)
    assert code == 0 and found["items"]["image"].keys() == {".jpg", ".jpeg", ".png"}


def test_modalities_may_be_named(tmp_path, rows):
    path = write(tmp_path, rows)
    assert call(path, "--modality", "image", "--modality", "text")[0] == 0
    code, _, err = call(path, "--modality", "image", "--modality", "audio")
    assert code == 2 and "audio" in err
    with pytest.raises(DataError):
        check_data(DataConfig((str(path),)), modalities=("audio", "text"))


def test_tables_for_people(tmp_path, rows):
    rows[0]["text"] = "nan"
    code, out, err = call(write(tmp_path, rows), "--split-column", "split")
    assert code == 0 and "A run can start" in out and ".jpg" in out and "texts: missing" in out
    assert "30 rows seen, 30 used" in err and "--missing-values nan" in err
