"""Encoders ranked before training: the related above the unrelated, chance taken off."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from pairs import write_world
from scipy.stats import spearmanr
from toys import TokenText, ToyImage, ToyText

from fusemix_core import rank
from fusemix_core.errors import ConfigError, DataError, FusemixError
from fusemix_core.interfaces import Encoder, PairedLatents
from fusemix_core.jobs.rank import Pairing, Ranking, _spearman
from fusemix_core.jobs.rank_fit import lead
from fusemix_core.jobs.rank_picture import FORMS, write_heat_map
from fusemix_core.specs import EncoderSpec


class Noise(Encoder):
    """A text encoder that knows nothing of what the texts say."""

    spec = EncoderSpec(
        name="toy-noise",
        modality="text",
        target="test_rank:Noise",
        dim=300,
        views=("pooled", "layers"),
    )

    @classmethod
    def load(cls, spec, device, dtype):
        return cls()

    def collate(self, items):
        return list(items)

    def encode(self, batch, view="pooled"):
        rows = []
        for text in batch:
            draw = torch.Generator().manual_seed(int.from_bytes(text.encode()[-7:], "little"))
            rows.append(torch.randn(3, 300, generator=draw))
        rows = torch.stack(rows)
        return rows if view == "layers" else rows[:, 0]

    @property
    def weights_digest(self):
        return "noise"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world") / "w", count=160)


@pytest.fixture(scope="module")
def ranking(world, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(tmp_path_factory.mktemp("home")))
        yield rank([ToyImage], [ToyText, Noise], world, device="cpu")


def test_related_encoders_come_first(ranking):
    first, second = ranking.pairings
    assert (first.b, second.b) == ("toy-text", "toy-noise")
    assert first.score > second.score
    for name in ("mutual_knn", "cknna", "svcca"):
        assert first.measures[name]["excess"] > second.measures[name]["excess"], name


def test_wide_latents_are_not_favoured_by_chance(ranking):
    noise = ranking.pairings[1].measures
    for name, found in noise.items():
        assert abs(found["excess"]) < 0.1 and found["p"] > 0.05, name
    assert noise["svcca"]["chance"] > 0.1  # what it would be taken for otherwise


def test_each_layer_is_a_candidate_and_the_best_of_many_is_held_against_chance(world):
    found = rank([ToyImage], [Noise], world, views={"text": "layers"}, device="cpu")
    assert sorted(p.b for p in found.pairings) == [f"toy-noise layer {i}" for i in range(3)]
    assert all(p.measures["mutual_knn"]["p"] > 0.05 for p in found.pairings)
    assert set(found.as_dict()) == {
        "modalities", "take", "pairs", "validation", "sample", "recipe", "pairings", "spearman",
        "rows", "columns", "warnings",
    }  # fmt: skip


def test_a_recipe_is_fitted_to_each_pairing(world):
    recipe = {"name": "fusemix", "dim": 8, "training": {"epochs": 3}, "adapter": "linear"}
    found = rank([ToyImage], [Noise, ToyText], world, recipe=recipe, device="cpu")
    first, second = found.pairings
    assert found.recipe == "fusemix" and (first.b, second.b) == ("toy-text", "toy-noise")
    assert first.probe["score"] > second.probe["score"]
    assert set(first.probe) == {"recall_at_1", "score", "seconds"}
    assert found.as_dict()["pairings"][0]["probe"] == first.probe


def test_with_a_recipe_measures_are_held_against_its_recall(world):
    recipe = {"name": "fusemix", "dim": 8, "training": {"epochs": 3}, "adapter": "linear"}
    found = rank([ToyImage], [Noise, ToyText, TokenText], world, recipe=recipe, device="cpu")
    scores = [p.probe["score"] for p in found.pairings]
    assert scores == sorted(scores, reverse=True)
    told = {n: [p.measures[n]["excess"] for p in found.pairings] for n in ("cknna", "svcca")}
    told["closed_form"] = [p.score for p in found.pairings]
    for name, values in told.items():
        assert found.spearman[name] == pytest.approx(spearmanr(values, scores).statistic)


def test_each_pairing_says_how_far_it_is_behind_the_first(ranking):
    first, second = ranking.pairings
    assert first.behind is None and not first.tied and not second.tied
    assert ranking.validation > 0 and ranking.taken is first
    low, high = second.behind["interval"]
    points = 100 * (first.score - second.score)
    assert second.behind["points"] == pytest.approx(points) and 0 < low < points < high


def test_a_lead_is_the_mean_over_queries_and_its_interval_that_of_their_bootstrap():
    links = torch.arange(200)[:, None].expand(-1, 2).contiguous()
    tables = {m: torch.zeros(200, 1) for m in ("image", "text")}
    draw = torch.Generator().manual_seed(0)
    hits = [
        {pair: torch.rand(200, 3, generator=draw) < share for pair in permutations(tables)}
        for share in (0.6, 0.5)
    ]
    found = lead(*hits, PairedLatents(tables, links), seed=0)
    apart = torch.stack([hits[0][p].double() - hits[1][p].double() for p in permutations(tables)])
    assert found["points"] == pytest.approx(100 * apart.mean().item())
    error = 100 * apart.mean(dim=(0, 2)).std().item() / 200**0.5
    low, high = found["interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    same = lead(hits[0], hits[0], PairedLatents(tables, links), seed=0)
    assert same == {"points": 0.0, "interval": [0.0, 0.0]}


def test_same_seed_same_ranking(world, ranking):
    again = rank([ToyImage], [ToyText, Noise], world, device="cpu")
    for found in (again, ranking):
        assert all(p.seconds > 0 for p in found.pairings)
    timeless = [[replace(p, seconds=None) for p in found.pairings] for found in (again, ranking)]
    both = [replace(f, pairings=p) for f, p in zip((again, ranking), timeless, strict=True)]
    assert both[0].as_dict() == both[1].as_dict()


def test_spearman_is_scipys():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randint(6, (2, 20), generator=draw).double().tolist()
    assert _spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert _spearman([1, 2], [1, 2]) is None


def test_errors(world, tmp_path):
    with pytest.raises(ConfigError, match="No encoder"):
        rank([], [ToyText], world)
    with pytest.raises(ConfigError, match="several modalities"):
        rank([ToyImage, ToyText], [ToyText], world)
    with pytest.raises(FusemixError, match="'txt'"):
        rank([ToyImage], [ToyText], world, views={"txt": "layers"})
    with pytest.raises(DataError, match="too few"):
        rank([ToyImage], [ToyText], write_world(tmp_path / "few", count=30), device="cpu")


@pytest.mark.parametrize("form", FORMS)
def test_the_same_ranking_is_the_same_picture(form, tmp_path, monkeypatch):
    pairings = [Pairing(a, "b", {"cka": {"excess": x}}, x, x) for a, x in (("a", 0.1), ("c", 0.2))]
    ranking = Ranking(("image", "text"), pairings, {"cka": None}, 9, 9)
    for name, date in (("one", "1000000000"), ("two", "1700000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
        write_heat_map(tmp_path / f"{name}{form}", ranking)
    assert (tmp_path / f"one{form}").read_bytes() == (tmp_path / f"two{form}").read_bytes()
