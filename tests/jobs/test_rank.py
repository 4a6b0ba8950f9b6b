"""Encoders ranked before training: the related above the unrelated, chance taken off."""

import pytest
import torch
from pairs import write_world
from scipy.stats import spearmanr
from toys import TokenText, ToyImage, ToyText

from fusemix_core import rank
from fusemix_core.errors import ConfigError, DataError, FusemixError
from fusemix_core.interfaces import Encoder
from fusemix_core.jobs.rank import Pairing, Ranking, _spearman
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
        "modalities", "pairs", "sample", "recipe", "pairings", "spearman",
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


def test_same_seed_same_ranking(world, ranking):
    again = rank([ToyImage], [ToyText, Noise], world, device="cpu")
    assert again.as_dict() == ranking.as_dict()


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
