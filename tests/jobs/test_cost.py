"""What the plan says of encoders that cost money, and of keys that are not there."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from pairs import write_world
from toys import ToyText
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.data.items import Items, Origin
from fusemix_core.data.references import FileReference, HeldReference
from fusemix_core.registry import registry
from fusemix_core.runs.cost import estimate_tokens

KEY = "FUSEMIX_TEST_KEY"


class PaidText(ToyText):
    """A toy whose latents cost two dollars a token, and need a key."""

    spec = replace(
        ToyText.spec,
        name="paid-text",
        target="toys:ToyText",
        weights="https://paid.invalid/v1#toy",
        price=2e6,
        environment=(KEY,),
    )
    encoded = 0

    def encode(self, batch, view="pooled"):
        type(self).encoded += len(batch)
        return super().encode(batch, view)

    def notes(self):
        return ["That was dear."]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY, "x")
    from toys import ToyImage

    registry.add(PaidText)
    registry.add(ToyImage)
    PaidText.encoded = 0
    return write_world(tmp_path / "world")


def run(*args, code=0):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result.stdout


def items_of(*references):
    n = len(references)
    origin = Origin(("f",), np.zeros(n, np.int32), np.arange(n))
    return Items("text", "text", references, np.zeros((n, 2), np.uint64), origin)


def test_tokens_are_a_quarter_of_the_characters_of_what_is_missing(tmp_path):
    (tmp_path / "a.txt").write_text("z" * 40)
    items = items_of("a" * 8, "b" * 12, FileReference(str(tmp_path / "a.txt")),
                     HeldReference(b"1234", "held"))  # fmt: skip
    everything = np.arange(4)
    assert estimate_tokens(PaidText.spec, items, everything) == (8 + 12 + 40 + 4) // 4
    assert estimate_tokens(PaidText.spec, items, np.array([1])) == 3
    assert estimate_tokens(replace(PaidText.spec, prompt="say "), items, everything) == 20
    assert estimate_tokens(ToyText.spec, items, everything) is None


def test_a_dry_run_of_embed_shows_the_cost_and_encodes_nothing(world):
    words = world.read_text()
    characters = sum(len(line.split(",")[1]) for line in words.splitlines()[1:])
    args = ["encode", "-e", "text=paid-text", "--data", world, "--dry-run"]
    printed = run(*args)
    assert f"about US${2 * round(characters / 4):,.4f}" in printed
    assert f"{round(characters / 4):,} tokens" in printed
    (plan,) = json.loads(run(*args, "--json"))
    assert plan["tokens"] == round(characters / 4) and plan["cost"] == 2 * plan["tokens"]
    assert (plan["missing"], plan["cached"]) == (64, 0)
    assert PaidText.encoded == 0


def test_what_is_cached_costs_nothing_and_needs_no_key(world, monkeypatch):
    printed = run("encode", "-e", "text=paid-text", "--data", world)
    assert printed.index("cost:") < printed.index("fingerprint")
    assert PaidText.encoded == 64
    monkeypatch.delenv(KEY)
    again = run("encode", "-e", "text=paid-text", "--data", world)
    assert "cost:" not in again and PaidText.encoded == 64


def test_align_plans_the_cost(world):
    args = ["align", "--a", "toy-image", "--b", "paid-text", "--data", world, "--dry-run"]
    assert "cost:    paid-text: about US$" in run(*args)
    image, text = json.loads(run(*args, "--json"))["encoders"]
    assert text["cost"] > 0 and image["cost"] is None


@pytest.mark.parametrize("value", [None, " "])
def test_a_missing_key_is_said_before_anything_is_encoded(world, monkeypatch, value):
    monkeypatch.delenv(KEY) if value is None else monkeypatch.setenv(KEY, value)
    for command in (
        ["encode", "-e", "text=paid-text"],
        ["align", "--a", "toy-image", "--b", "paid-text"],
    ):
        result = CliRunner().invoke(app, [*command, "--data", str(world)])
        assert result.exit_code == 2, result.output
        assert KEY in result.output
    assert PaidText.encoded == 0 and not os.path.exists("runs")


def test_what_an_encoder_notes_is_said(world):
    from fusemix_core.config import DataConfig
    from fusemix_core.data.reading import read_pairs
    from fusemix_core.latents.extraction import extract
    from fusemix_core.latents.store import LatentStore

    dataset = read_pairs(DataConfig(source=(str(world),)), {"text": "text"}, least=1)
    done = extract(PaidText.spec, dataset.items["text"], LatentStore())
    assert "That was dear." in done.warnings
    again = extract(PaidText.spec, dataset.items["text"], LatentStore())
    assert again.warnings == []


def test_a_spec_says_how_many_items_go_at_once(world):
    from fusemix_core.config import DataConfig
    from fusemix_core.data.reading import read_pairs
    from fusemix_core.latents.extraction import extract
    from fusemix_core.latents.store import LatentStore

    sizes = []

    class Counting(PaidText):
        def encode(self, batch, view="pooled"):
            sizes.append(len(batch))
            return super().encode(batch, view)

    spec = replace(PaidText.spec, name="counting", batch=50)
    dataset = read_pairs(DataConfig(source=(str(world),)), {"text": "text"}, least=1)
    encoder = Counting(spec)
    extract(spec, dataset.items["text"], LatentStore(), encoder=encoder)
    assert sizes == [50, 14]
