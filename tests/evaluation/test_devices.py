"""Metrics are computed where a fit runs."""

import torch

from fusemix_core.config import Part, Recipe
from fusemix_core.evaluation import directions, examples, ranking, retrieval, zeroshot
from fusemix_core.evaluation.ranking import cosine
from fusemix_core.measured import Classes, Measured
from fusemix_core.runs.embeddings import SplitEmbeddings
from fusemix_core.runs.measure import draw_examples
from fusemix_core.runs.scorers import choose_scorer

HERE = torch.device("cpu", 0)
"""A device that is told from the default."""


def seen(monkeypatch, room):
    """The devices that ranks are asked for on in a module."""
    found = []

    def rank_direction(*arguments, **options):
        found.append(arguments[5] if len(arguments) > 5 else options.get("device"))
        return ranking.rank_direction(*arguments, **options)

    monkeypatch.setattr(room, "rank_direction", rank_direction)
    return found


def measured(device=HERE):
    links = torch.arange(6)[:, None].repeat(1, 2)
    classes = Classes(["a", "b"], torch.arange(6) % 2, torch.eye(6)[:2], "image", "text")
    return Measured(
        embeddings={"image": torch.eye(6), "text": torch.eye(6)},
        links=links,
        score=cosine,
        classes=classes,
        device=device,
    )


def test_retrieval_ranks_on_the_device_of_what_is_measured(monkeypatch):
    found = seen(monkeypatch, directions)
    retrieval.RetrievalEvaluator()(measured())
    assert found == [HERE, HERE]


def test_examples_are_found_there(monkeypatch):
    found = seen(monkeypatch, examples)
    drawn = draw_examples(measured())
    assert len(drawn) == 8 and found == [HERE, HERE]


def test_the_scorer_is_chosen_there(monkeypatch):
    found = seen(monkeypatch, directions)
    rows = {m: torch.nn.functional.normalize(torch.randn(6, 4), dim=1) for m in ("image", "text")}
    links, ids = torch.arange(6)[:, None].repeat(1, 2), {m: torch.arange(6) for m in rows}
    split = SplitEmbeddings(rows, links, ids, device=HERE)
    choose_scorer(Recipe("any", Part("cca")), split, split)
    assert set(found) == {HERE}


def test_classes_are_compared_there(monkeypatch):
    moved = []
    monkeypatch.setattr(
        zeroshot, "zero_shot", lambda *_, device, **__: moved.append(device) or {"top1": 0.0}
    )
    zeroshot.ZeroShotEvaluator()(measured())
    assert moved == [HERE]
