"""The layers that are most alike: chosen as platonic-rep does, fitted on alone, saved for good."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_structure.layers import BestLayersAligner, LayerAdapter
from pairs import write_world
from safetensors.torch import load_file
from toys import ToyImage, ToyText

from fusemix_core import FusedModel, align
from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents
from fusemix_core.runs.config import find_recipe
from fusemix_core.testing import check_adapter, check_aligner

V = load_file(Path(__file__).parent / "parity/platonic_layers/vectors.safetensors")


class Heard(Callback):
    def __init__(self):
        self.evaluations = []

    def on_evaluation(self, step, metrics):
        self.evaluations.append(metrics)


class LayeredText(ToyText):
    """A ToyText whose second layer of three is the one that knows something."""

    spec = ToyText.spec.__class__(
        name="toy-layered", modality="text", target="test_layers:LayeredText", dim=12,
        views=("pooled", "layers"),
    )  # fmt: skip

    def encode(self, batch, view="pooled"):
        pooled = super().encode(batch)
        noise = [pooled.sin() * 40 % 1, pooled.cos() * 70 % 1]
        return torch.stack([noise[0], pooled, noise[1]], dim=1) if view == "layers" else pooled


def layered(n=60, seed=0):
    """Three modalities of one world; the layer that shows it is 2 of 3, 1 of 2 and all of c."""
    draw = torch.Generator().manual_seed(seed)
    world = torch.randn(n, 6, generator=draw)
    shown = [world @ torch.randn(6, 8, generator=draw) for _ in range(3)]
    noise = [torch.randn(n, 8, generator=draw) for _ in range(3)]
    return PairedLatents(
        {
            "a": ResidentLatents(torch.stack([noise[0], noise[1], shown[0]], dim=1)),
            "b": ResidentLatents(torch.stack([noise[2], shown[1]], dim=1)),
            "c": ResidentLatents(shown[2]),
        },
        torch.arange(n)[:, None].repeat(1, 3),
    )


def fit(pairs, **options):
    heard = Heard()
    aligner = BestLayersAligner(aligner="cca", **options)
    context = FitContext(callbacks=[heard])
    return aligner.fit(pairs, pairs, Recipe("r", Part("best-layers")), context), heard


def test_the_search_of_platonic_rep():
    a, b = V["layers.in.a"], V["layers.in.b"]
    links = torch.arange(len(a))[:, None].repeat(1, 2)
    pairs = PairedLatents({"a": ResidentLatents(a), "b": ResidentLatents(b)}, links)
    aligner = BestLayersAligner(neighbours=int(V["layers.in.topk"]))
    chosen, alike = aligner._choose(pairs, FitContext(seed=3))
    assert list(chosen.values()) == V["layers.out.best_pair"].tolist()
    assert alike == pytest.approx(V["layers.out.best_score"].item(), abs=1e-9)


def test_it_fits_on_the_layers_that_are_alike():
    pairs = layered()
    adapters, heard = fit(pairs, options={"landmarks": 0})
    assert (adapters["a"].layer, adapters["b"].layer) == (2, 1)
    assert not isinstance(adapters["c"], LayerAdapter)
    told = heard.evaluations[-1]
    assert (told["layer/a"], told["layer/b"]) == (2, 1) and "layer/c" not in told
    alone = PairedLatents(
        {m: ResidentLatents(pairs.tables[m].latents[:, i]) for m, i in (("a", 2), ("b", 1))}
        | {"c": pairs.tables["c"]},
        pairs.links,
    )
    direct, _ = fit(alone, options={"landmarks": 0})  # nothing to choose: handed on
    for modality in pairs.tables:
        rows, own = (p.latents_of(modality, torch.arange(5)) for p in (pairs, alone))
        assert torch.equal(adapters[modality](rows), direct[modality](own))


class HeardAll(Heard):
    """Hears the passes of a closed form too."""

    def __init__(self):
        super().__init__()
        self.pairs = []

    def on_pairs(self, done, total):
        self.pairs.append((done, total))


def test_fixed_modalities_stay_and_a_layer_is_chosen_of_the_others():
    pairs = layered()
    fixed = {"c": IdentityAdapter(8, 8).eval()}
    for aligner in ("cca", "gradient"):
        heard = HeardAll()
        context = FitContext(callbacks=[heard], fixed=fixed)
        recipe = Recipe(
            "r", Part("best-layers"), adapter=Part("linear"), objective=Part("infonce"),
            training=Training(epochs=1),
        )  # fmt: skip
        found = BestLayersAligner(aligner=aligner).fit(pairs, pairs, recipe, context)
        assert found["c"] is fixed["c"]
        assert (found["a"].layer, found["b"].layer) == (2, 1)
        assert heard.evaluations[-1]["layer/a"] == 2
        assert bool(heard.pairs) == (aligner == "cca")


def test_items_that_occur_twice_are_not_their_own_neighbours():
    pairs = layered()
    twice = PairedLatents(pairs.tables, pairs.links.repeat(3, 1))
    assert BestLayersAligner()._choose(twice, FitContext())[0] == {"a": 2, "b": 1, "c": 0}


def test_a_run_says_what_it_chose_and_its_model_does_not_choose_again(tmp_path):
    data = write_world(tmp_path / "w", count=64)
    done = align(
        {"image": ToyImage, "text": LayeredText}, data, views={"text": "layers"}, device="cpu",
        recipe="structure", overrides=["training.epochs=2", "dim=8"], out=tmp_path / "r",
    )  # fmt: skip
    part = done.results["adapters"]["text"]
    assert part["name"] == "layer" and part["options"]["adapter"] == "linear"
    assert (part["options"]["layer"], part["options"]["layers"]) == (1, 3)
    assert done.results["adapters"]["image"]["name"] == "linear"
    assert json.loads((tmp_path / "r/results.json").read_text())["adapters"]["text"] == part
    again = FusedModel.from_pretrained(
        tmp_path / "r/model", encoders={"image": ToyImage.spec, "text": LayeredText.spec}
    )
    texts = ["a red car", "a blue boat"]
    assert torch.equal(again.encode("text", texts), done.model.encode("text", texts))


def test_a_run_of_the_recipe_keeps_a_fixed_side(tmp_path):
    data = write_world(tmp_path / "w", count=64)
    done = align(
        {"image": ToyImage, "text": LayeredText}, data, views={"text": "layers"}, device="cpu",
        recipe="structure", fixed="image", overrides=["training.epochs=2"], out=tmp_path / "r",
    )  # fmt: skip
    adapters = done.results["adapters"]
    assert adapters["image"]["name"] == "identity" and adapters["text"]["name"] == "layer"


@pytest.mark.slow
def test_contracts():
    check_aligner("best-layers").raise_if_failed()
    check_adapter("layer", options={"layers": 2, "layer": 1}).raise_if_failed()
    assert find_recipe("structure", []).aligner.name == "best-layers"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: LayerAdapter(6, 2, layers=2, layer=2), ConfigError),
        (lambda: LayerAdapter(6, 2, layers=4), ConfigError),
        (lambda: BestLayersAligner(neighbours=0), ConfigError),
        (lambda: fit(layered(n=9)), DataError),
    ],
)
def test_what_can_not_be_is_told(wrong, error):
    with pytest.raises(error):
        wrong()
