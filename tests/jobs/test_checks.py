"""What can be known before encoding is said before it, and equal latents never reach a fit."""

import csv
import json

import pytest
import torch
from pairs import write_world
from toys import ToyImage, ToyText
from typer.testing import CliRunner

from fusemix_core import align, rank, select
from fusemix_core.benchmark.run import bench
from fusemix_core.cli.app import app
from fusemix_core.errors import DataError
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

ENCODERS = {"image": ToyImage, "text": ToyText}


class Same(ToyText):
    """An encoder that gives one latent whatever it is given, but for rounding."""

    spec = EncoderSpec(name="toy-same", modality="text", target="toys:Same", dim=12)

    def encode(self, batch, view="pooled"):
        rows = torch.linspace(-1, 1, 12).repeat(len(batch), 1)
        return rows * (1 + 1e-6 * torch.rand(len(batch), 1))


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path / "w")


@pytest.fixture
def nothing_encoded(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("something was encoded")

    monkeypatch.setattr("fusemix_core.runs.encode.extract", fail)


def rewrite(path, change):
    with open(path) as file:
        rows = [change(i, row) for i, row in enumerate(csv.DictReader(file))]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def no_train(path):
    rewrite(path, lambda i, row: {**row, "split": "test" if i % 2 else "validation"})
    return {"source": path, "split_column": "split"}, "train split has 0 pairs"


def no_validation(path):
    rewrite(path, lambda i, row: {**row, "split": "test" if i % 2 else "train"})
    data = {"source": path, "split_column": "split", "validation_fraction": 0.0}
    return data, "validation split has 0 pairs"


def untrusted(path):
    rewrite(path, lambda i, row: {**row, "trust": "0"})
    return {"source": path}, "train split has 0 pairs"


def one_caption(path):
    rewrite(path, lambda i, row: {**row, "text": "a car"})
    return {"source": path}, "all text items have one latent"


FAULTS = [no_train, no_validation, untrusted, one_caption]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dry_run_says_that_nothing_can_be_fitted(fault, world, nothing_encoded, tmp_path):
    data, says = fault(world)
    for encoder in (ToyImage, ToyText):
        registry.add(encoder)
    options = {"split_column": "--split-column", "validation_fraction": "--validation-fraction"}
    args = [str(part) for k, option in options.items() if k in data for part in (option, data[k])]
    args = ["align", "-e", "image=toy-image", "-e", "text=toy-text", "--data", str(world), *args]
    done = CliRunner().invoke(app, [*args, "--dry-run"])
    assert done.exit_code == 2 and says in done.stderr, done.output
    with pytest.raises(DataError, match=says):
        align(ENCODERS, data, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_rank_and_bench_say_so_before_they_encode(fault, world, nothing_encoded, tmp_path):
    data, says = fault(world)
    with pytest.raises(DataError, match=says):
        rank([ToyImage], [ToyText], data)
    if fault is untrusted:  # a method of a benchmark may use trust
        return
    for encoder in (ToyImage, ToyText):
        registry.add(encoder)
    table = {**data, "source": str(world), "encoders": {"image": "toy-image", "text": "toy-text"}}
    with pytest.raises(DataError, match=says):
        bench({"methods": ["csa"], "sets": {"w": table}}, tmp_path / "b")


def test_an_out_that_is_a_file_is_said_by_the_plan(world, tmp_path, nothing_encoded):
    for encoder in (ToyImage, ToyText):
        registry.add(encoder)
    (tmp_path / "file").touch()
    args = ["align", "-e", "image=toy-image", "-e", "text=toy-text", "--data", str(world)]
    for out in ("file", "file/below"):
        for more in ([], ["--dry-run"]):
            done = CliRunner().invoke(app, [*args, *more, "--out", str(tmp_path / out)])
            assert done.exit_code == 2 and "file is a file" in done.stderr, done.output


def recipes():
    return sorted(spec.name for _, spec in registry.all_components("recipe"))


@pytest.fixture(scope="module")
def encoded_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("recipe", recipes())
def test_equal_latents_are_an_error_of_the_data_for_every_recipe(
    recipe, world, tmp_path, monkeypatch, encoded_home
):
    monkeypatch.setenv("FUSEMIX_HOME", str(encoded_home))
    data = {"source": world, "facts": {"label": "thing", "box": "thing", "age": "thing"}}
    with pytest.raises(DataError, match="all text items have one latent"):
        align({"image": ToyImage, "text": Same}, data, recipe=recipe, out=tmp_path / "r")


def test_equal_latents_are_an_error_of_every_other_job(world, tmp_path):
    both = {"image": ToyImage, "text": Same}
    with pytest.raises(DataError, match="all text items have one latent"):
        rank([ToyImage], [Same], world)
    with pytest.raises(DataError, match="all text items have one latent"):
        select(both, world, 9, overrides=["selector.by=text"])
    registry.add(ToyImage)
    table = {"source": str(world), "encoders": {"image": "toy-image", "text": "toy-same"}}
    with pytest.raises(DataError, match="all text items have one latent"):
        bench({"methods": ["csa"], "sets": {"w": table}}, tmp_path / "b")


def test_a_layer_of_equal_latents_does_not_stop_a_ranking(world):
    class Layers(ToyText):
        spec = EncoderSpec(
            name="toy-some-layers", modality="text", target="toys:Layers", dim=12,
            views=("pooled", "layers"),
        )  # fmt: skip

        def encode(self, batch, view="pooled"):
            pooled = super().encode(batch)
            return torch.stack([torch.ones_like(pooled), pooled], 1) if view == "layers" else pooled

    found = rank([ToyImage], [Layers], world, views={"text": "layers"}, shuffles=2)
    assert len(found.pairings) == 2 and json.dumps(found.as_dict())


@pytest.mark.parametrize("command", ["rank", "bench"])
def test_rank_and_bench_can_be_planned(command, world, tmp_path, monkeypatch, nothing_encoded):
    monkeypatch.chdir(tmp_path)
    for encoder in (ToyImage, ToyText):
        registry.add(encoder)
    args = [command, "--a", "toy-image", "--b", "toy-text", "--data", str(world), "--dry-run"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0 and "64 rows seen" in done.stderr, done.output
    one_caption(world)
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 2 and "all text items have one latent" in done.stderr
    assert not (tmp_path / "bench").exists()
