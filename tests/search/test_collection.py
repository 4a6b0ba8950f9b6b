"""Collections: what is found, what an update encodes, and what becomes of moved and lost files."""

import csv
import os
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from search.conftest import ENCODERS, Heard, data_of

from fusemix_core.config import Part
from fusemix_core.errors import ArtefactError, ConfigError, DataError
from fusemix_core.interfaces import Scorer
from fusemix_core.runs.models import load_model
from fusemix_core.search import Collection
from fusemix_core.search.updating import first_state


@pytest.fixture
def made(world, model, tmp_path):
    """A collection of all that is in the table of the world."""
    return Collection.create(tmp_path / "i", model, data_of(world / "pairs.csv"))


@pytest.fixture
def photos(world, model, tmp_path):
    """A collection of a folder of images."""
    (world / "pairs.csv").unlink()
    return Collection.create(tmp_path / "i", model, data_of(world), ["image"])


def names(found):
    return [Path(one.item).name for one in found]


@pytest.mark.parametrize("query", ["text", "image"])
@pytest.mark.parametrize("target", ["text", "image"])
def test_it_finds_what_similarity_ranks_first(made, model, query, target):
    everything = made.search(torch.eye(model.dim)[0], query, 1000, target=target)
    gallery = made.vectors(one.key for one in everything)
    number = {one.key: i for i, one in enumerate(everything)}
    draw = torch.Generator().manual_seed(0)
    queries = torch.nn.functional.normalize(torch.randn(20, model.dim, generator=draw), dim=1)
    for vector, scores in zip(
        queries, model.similarity(queries, gallery, query, target), strict=True
    ):
        found = made.search(vector, query, 10, target=target)
        said = torch.tensor([one.score for one in found])
        own = scores[[number[one.key] for one in found]]  # of items with equal scores, either
        torch.testing.assert_close(said, scores.topk(10).values, atol=1e-5, rtol=0)
        torch.testing.assert_close(said, own, atol=1e-5, rtol=0)


def test_vectors_are_those_of_the_model(made, model, world):
    found = made.search(made.encode("text", "a red car"), "text", 96)
    expected = model.encode("image", [one.item for one in found])
    torch.testing.assert_close(made.vectors(one.key for one in found), expected, atol=2e-3, rtol=0)
    assert made.items([found[3].key])[0].item == found[3].item
    with pytest.raises(KeyError):
        made.items(["00" * 16])
    with pytest.raises(KeyError):
        made.vectors(["no key"])


def test_pages_and_exclusions(made):
    vector = made.encode("text", "a red car")
    whole = made.search(vector, "text", 20)
    assert made.search(vector, "text", 5, offset=10) == whole[10:15]
    assert made.search(vector, "text", 5, offset=200) == []
    assert made.search(vector, "text", 0) == []
    gone = [one.key for one in whole[:12]]
    assert made.search(vector, "text", 8, exclude=gone) == whole[12:20]


def test_conditions_on_columns(made):
    vector = made.encode("text", "a red car")
    every = made.search(vector, "text", 96)
    cars = [one for one in every if one.columns["thing"] == "car"]
    assert made.search(vector, "text", 96, where="thing = 'car'") == cars
    assert made.search(vector, "text", 2, where="thing = 'car'") == cars[:2]
    assert made.search(vector, "text", 5, where="thing = 'nothing'") == []
    assert names(made.search(vector, "text", 5, where="item like '%/7.png'")) == ["7.png"]
    assert made.columns == {"text": "text", "thing": "text"}
    assert dict(made.facets("thing"))["car"] == 2 * len(cars)  # images and texts
    with pytest.raises(ConfigError, match="no column 'price'"):
        made.search(vector, "text", where="price > 3")


def test_percentiles_rise_with_the_score(made):
    found = made.search(made.encode("text", "a red car"), "text", 96)
    shares = [one.percentile for one in found]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 90 and shares[-1] < 20


def test_an_update_encodes_only_what_is_new(photos, world, tmp_path):
    """Even if the latent store has been emptied since."""
    shutil.rmtree(tmp_path / "home")
    for i in range(3):
        shutil.copy(world / f"{i}.png", world / f"same{i}.png")
    new = np.random.default_rng(0).integers(0, 255, (5, 12, 12, 3), np.uint8)
    for i, pixels in enumerate(new):
        Image.fromarray(pixels).save(world / f"new{i}.png")
    heard = Heard()
    assert photos.update(heard) == {"added": 5, "removed": 0, "items": 101}
    assert heard.encoded == 5
    again = Heard()
    assert photos.update(again) == {"added": 0, "removed": 0, "items": 101}
    assert again.encoded == 0


def test_vanished_files_are_not_found_and_moved_ones_are_not_encoded_again(photos, world, tmp_path):
    vector = photos.encode("text", "a red car")
    before = photos.search(vector, "text", 96)
    shutil.rmtree(tmp_path / "home")
    (world / "deep/er").mkdir(parents=True)
    moved = before[0]
    os.rename(moved.item, world / "deep/er/moved.png")
    os.unlink(before[1].item)
    heard = Heard()
    assert photos.update(heard) == {"added": 0, "removed": 1, "items": 95}
    assert heard.encoded == 0
    after = photos.search(vector, "text", 96)
    assert len(after) == 95 and after[0].key == moved.key
    assert names(after[:1]) == ["moved.png"]
    assert before[1].key not in {one.key for one in after}
    with pytest.raises(KeyError):
        photos.items([before[1].key])


def test_a_file_that_comes_back_is_found_again(photos, world):
    vector = photos.encode("text", "a red car")
    before = photos.search(vector, "text", 96)
    path = Path(before[0].item)
    content = path.read_bytes()
    path.unlink()
    photos.update()
    path.write_bytes(content)
    photos.update()
    assert [one.key for one in photos.search(vector, "text", 96)] == [one.key for one in before]


def test_a_file_that_cannot_be_decoded_stays_out_and_too_many_are_an_error(photos, world):
    vector = photos.encode("text", "a red car")
    before = photos.search(vector, "text", 96)
    (world / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(DataError, match="--max-bad"):
        photos.update()
    assert photos.search(vector, "text", 96) == before


def test_a_few_that_cannot_be_decoded_are_told(world, model, tmp_path):
    (world / "pairs.csv").unlink()
    (world / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    heard = Heard()
    made = Collection.create(
        tmp_path / "i", model, data_of(world, max_bad=0.1), ["image"], reporter=heard
    )
    assert len(made) == 96 and any("broken.png" in note for note in heard.notes)
    heard = Heard()
    assert made.update(heard)["items"] == 96
    assert any("broken.png" in note for note in heard.notes)


def test_columns_that_change_are_read_again(made, world):
    with (world / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (world / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "year"])
        writer.writeheader()
        writer.writerows(row | {"year": 2000 + i} for i, row in enumerate(rows))
    heard = Heard()
    made.update(heard)
    assert heard.encoded == 0 and made.columns["year"] == "number"
    vector = made.encode("text", "a red car")
    found = made.search(vector, "text", 96, where="year >= 2090")
    assert sorted(one.columns["year"] for one in found) == list(range(2090, 2096))


def test_a_reader_takes_in_what_another_process_updates(photos, world):
    reader = Collection.open(photos.folder, photos.model)
    vector = photos.encode("text", "a red car")
    first = reader.search(vector, "text", 1)[0]
    os.unlink(first.item)
    photos.update()
    assert reader.search(vector, "text", 1)[0].key != first.key and len(reader) == 95


def test_media_are_found_by_key_and_stay_in_the_data(made, photos_outside):
    found = made.search(made.encode("text", "a red car"), "text", 1)[0]
    assert made.media(found.key) == Path(os.path.realpath(found.item))
    text = made.search(made.encode("text", "a red car"), "text", 1, target="text")[0]
    assert made.media(text.key) == text.item
    os.unlink(found.item)
    with pytest.raises(DataError, match="is gone"):
        made.media(found.key)
    os.symlink(photos_outside, found.item)
    with pytest.raises(DataError, match="outside"):
        made.media(found.key)


@pytest.fixture
def photos_outside(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(b"secret")
    return path


def test_media_in_an_archive_are_its_bytes(world, model, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for i in range(20):
            tar.add(world / f"{i}.png", f"{i:03}.png")
    made = Collection.create(tmp_path / "i", model, data_of(tmp_path / "photos.tar"), ["image"])
    found = made.search(made.encode("text", "a red car"), "text", 20)
    for one in found:
        number = int(one.item.rpartition("#")[2].removesuffix(".png"))
        assert made.media(one.key) == (world / f"{number}.png").read_bytes()


def test_the_map_has_a_place_for_every_item(made):
    keys, places = made.map()
    assert len(set(keys)) == len(keys) == len(made) == 192
    assert places.shape == (192, 2) and np.isfinite(places).all()
    assert places.std(axis=0).min() > 0


def test_an_index_opens_without_the_run_and_from_another_folder(
    made, fitted, world, monkeypatch, tmp_path
):
    moved = tmp_path / "elsewhere/i"
    moved.parent.mkdir()
    os.rename(made.folder, moved)
    monkeypatch.chdir(moved.parent)
    again = Collection.open("i", load_model("i/model", "cpu", ENCODERS))
    assert len(again.search(again.encode("text", "a red car"), "text", 5)) == 5
    assert again.update() == {"added": 0, "removed": 0, "items": 192}


def test_a_folder_with_anything_else_is_refused(made, model, world, tmp_path):
    with pytest.raises(ConfigError, match="has an index already"):
        Collection.create(made.folder, model, data_of(world))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        Collection.create(tmp_path / "full", model, data_of(world))
    with pytest.raises(ArtefactError, match="fusemix index RUN"):
        Collection.open(tmp_path / "full")


def test_what_cannot_be_searched_is_refused(made, photos_outside):
    vector = made.encode("text", "a red car")
    with pytest.raises(ConfigError, match="no queries of 'audio'"):
        made.search(vector, "audio")
    with pytest.raises(ConfigError, match="no items of 'audio'"):
        made.search(vector, "text", target="audio")
    with pytest.raises(ConfigError, match="numbers, not"):
        made.search(vector[:3], "text")


def test_a_scorer_that_cannot_be_lifted_is_refused_before_anything_is_encoded(model, world):
    class Odd(Scorer):
        def score(self, queries, gallery, query, target):
            return (queries @ gallery.T) ** 2

    class Fake:
        modalities, dim, scorer = model.modalities, model.dim, Odd()
        encoders = model.encoders

    with pytest.raises(ConfigError, match="can't be served"):
        first_state(Fake(), data_of(world), [], Part("flat"))


def test_damage_is_found_and_mended_by_an_update(made, model):
    vector = made.encode("text", "a red car")
    before = made.search(vector, "text", 30)
    globs = ("index.json", "*.sqlite", "vectors/*/*.vectors", "vectors/*/manifest.json")
    paths = [path for glob in globs for path in made.folder.glob(glob)]
    assert len(paths) == 6
    for path in paths[1:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
        with pytest.raises(ArtefactError, match="index update"):
            Collection.open(made.folder, model).search(vector, "text")
            Collection.open(made.folder, model).search(vector, "text", target="text")
        opened = Collection.open(made.folder, model)
        assert any(str(path) in fault for fault in opened.check())
        opened.update()
        again = Collection.open(made.folder, model)
        assert not again.check()
        assert [one.key for one in again.search(vector, "text", 30)] == [one.key for one in before]
    content = bytearray(paths[0].read_bytes())
    content[len(content) // 2] ^= 4
    paths[0].write_bytes(content)
    with pytest.raises(ArtefactError, match="is damaged"):
        Collection.open(made.folder, model)


def test_two_updates_at_once_both_end_well(photos, world, model):
    for i in range(6):
        Image.new("RGB", (12, 12), (i * 40, 9, 9)).save(world / f"new{i}.png")
    counts, failed = [], []

    def work():
        try:
            counts.append(Collection.open(photos.folder, model).update())
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failed
    assert sorted(one["added"] for one in counts) == [0, 0, 6]
    assert not Collection.open(photos.folder, model).check()
