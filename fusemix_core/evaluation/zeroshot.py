"""Zero-shot classification: the nearest class, each class a mean over prompt templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError, DataError
from fusemix_core.evaluation.bootstrap import CONFIDENCE, RESAMPLES, draw_kinds, interval, share
from fusemix_core.evaluation.compared import CHANCE, ahead
from fusemix_core.evaluation.multilabel import (
    NEGATIVE,
    POSITIVE,
    fact_labels,
    measure_labels,
    section_of,
)
from fusemix_core.evaluation.ranking import cosine
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import Classes, Measured, Score
from fusemix_core.numerics import at_least_float32, exact
from fusemix_core.registry import registry
from fusemix_core.sections import Section, Share, Table

_MOST_CONFUSIONS = 12
_MOST_CLASSES = 200


def default_templates(modality: str) -> tuple[str, ...]:
    """The templates that plugins declare for items of `modality`; else the bare class name."""
    declared = registry.modality(modality)
    return (declared and declared.prompts) or ("{}",)


def prompts(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every class in every template, class by class."""
    return [template.replace("{}", name) for name in classes for template in templates]


def class_embeddings(
    encode: Callable[[list[str]], Tensor], classes: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Unit-norm `[C, d]`: of each class the mean of its prompts' unit-norm embeddings.

    `encode` gives `[n, d]` for a list of n prompts, such as `FusedModel.encode` for text. The
    averaging of templates is that of Radford et al., 2021 (arXiv 2103.00020), section 3.1.4.
    """
    rows = normalize(at_least_float32(encode(prompts(classes, templates))), dim=-1)
    return normalize(rows.reshape(len(classes), len(templates), -1).mean(dim=1), dim=-1)


@exact()
@torch.no_grad()
def zero_shot(
    embeddings: Tensor,
    labels: Tensor | Sequence[int],
    class_embeddings: Tensor,
    classes: Sequence[str],
    score: Score = cosine,
    *,
    query: str = "image",
    target: str = "text",
    resamples: int = RESAMPLES,
    seed: int = 0,
    chunk: int = 4096,
    device: torch.device | str | None = None,
) -> dict[str, Any]:
    """Classify unit-norm `[n, d]` items of modality `query` by `class_embeddings` `[C, d]`.

    labels: the index of each item's class. As in retrieval a tie counts against the item, and a
    NaN is never right. Returns, shares in percent (None for a class without items):

        items, classes: [name, …]
        top1, top5, mean_per_class, each with _interval    (bootstrap over items)
        per_class: {name: {items, top1, top5}}
        confusion: C rows (true) of C counts (predicted)
        confidence, resamples, seed
    """
    labels = torch.as_tensor(labels, dtype=torch.long).cpu()
    _check(labels, len(embeddings), class_embeddings, classes)
    count = len(classes)
    sides = score, query, target
    rank, best = rank_classes(embeddings, labels, class_embeddings, *sides, chunk, device)
    confusion = torch.bincount(labels * count + best, minlength=count * count)
    hits = np.stack([np.ones(len(rank)), (rank < 1).numpy(), (rank < 5).numpy()], axis=1)
    totals = np.zeros((count, 3))
    np.add.at(totals, labels.numpy(), hits)
    return {
        "items": len(labels),
        "classes": list(classes),
        **_shares(labels.numpy(), hits, totals, resamples, seed),
        "per_class": {
            name: {
                "items": int(n),
                "top1": 100 * top1 / n if n else None,
                "top5": 100 * top5 / n if n else None,
            }
            for name, (n, top1, top5) in zip(classes, totals.tolist(), strict=True)
        },
        "confusion": confusion.reshape(count, count).tolist(),
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
    }


@exact()
@torch.no_grad()
def rank_classes(
    embeddings: Tensor,
    labels: Tensor,
    class_embeddings: Tensor,
    score: Score,
    query: str,
    target: str,
    chunk: int = 4096,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """(0-based rank of each item's class, the class that is predicted), int64 `[n]`; arguments are
    those of `zero_shot`."""
    gallery = at_least_float32(class_embeddings).to(device)
    parts = []
    for rows, own in zip(embeddings.split(chunk), labels.split(chunk), strict=True):
        scores = score(at_least_float32(rows).to(device), gallery, query, target).cpu()
        parts.append(_rank_classes(scores, own))
    rank, best = zip(*parts, strict=True)
    return torch.cat(rank), torch.cat(best)


def _check(labels: Tensor, items: int, embeddings: Tensor, classes: Sequence[str]) -> None:
    if len(embeddings) != len(classes) or len(labels) != items:
        raise ValueError(
            f"{len(labels)} labels for {items} items, "
            f"{len(embeddings)} class embeddings for {len(classes)} classes"
        )
    if len(classes) < 2:
        raise DataError("Classification needs at least two classes.", "Add classes to --classes.")
    if not items:
        raise DataError(
            "No item carries one of the classes, so there is nothing to classify.",
            "The label of an item must be written as in the file of classes.",
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError("labels must be indices into classes")


def _rank_classes(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """0-based rank of the true class (C if it has no score) and the predicted class, `[n]`.

    The prediction is the true class only if it is strictly best.
    """
    true = scores.gather(1, labels[:, None])
    others = scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    others = others.scatter(1, labels[:, None], -torch.inf)
    ahead = (~(others < true)).sum(dim=1).clamp(max=scores.shape[1] - 1)
    rank = torch.where(true[:, 0].isnan(), scores.shape[1], ahead)
    # The class masked above must not win a tie of -inf with the others.
    rival = others.scatter(1, labels[:, None], torch.nan).nan_to_num(
        nan=-torch.inf, posinf=torch.inf, neginf=torch.finfo(others.dtype).min
    )
    return rank, torch.where(rank == 0, labels, rival.argmax(dim=1))


def _shares(
    labels: np.ndarray, hits: np.ndarray, totals: np.ndarray, resamples: int, seed: int
) -> dict[str, Any]:
    """top1, top5 and mean_per_class with their intervals."""
    classes, own = np.unique(labels, return_inverse=True)
    everything = totals.sum(axis=0)
    per_class = share(totals[classes, 1], totals[classes, 0])
    out: dict[str, Any] = {
        "top1": float(share(everything[1], everything[0])),
        "top5": float(share(everything[2], everything[0])),
        "mean_per_class": float(per_class.mean()),
    }
    intervals: list[list[float] | None] = [None, None, None]
    # Items alike in class and hits are one kind; what is drawn is how often each kind comes up.
    kinds, counts = np.unique(np.column_stack([own, hits[:, 1:]]), axis=0, return_counts=True)
    drawn = draw_kinds(counts, resamples, seed)
    if drawn is not None:
        by_class = np.zeros((resamples, len(classes), 3))
        for (index, top1, top5), times in zip(kinds, drawn.T, strict=True):
            by_class[:, int(index)] += times[:, None] * np.array([1.0, top1, top5])
        n, hit1, hit5 = by_class.sum(axis=1).T
        per_class = np.nanmean(share(by_class[..., 1], by_class[..., 0]), axis=1)
        intervals = [interval(v) for v in (share(hit1, n), share(hit5, n), per_class)]
    for name, value in zip(("top1", "top5", "mean_per_class"), intervals, strict=True):
        out[f"{name}_interval"] = value
    return out


class ZeroShotEvaluator(Evaluator):
    """`zero_shot` of the items of one modality, beside a random choice and `Measured.baselines`.

    The classes are those that the job was given (`fusemix eval --classes`). With `fact`, they are
    the classes of a fact of the rows. If items may have any number of classes, it is `multi_label`.

    Args:
        fact: the name of the fact.
        modality: which items to classify by the fact, by default the first that are not texts.
        text: the modality of the classes' prompts, by default the first that is read as text.
        resamples: of the bootstrap; 0 leaves out the intervals.
        separator: between the classes in a value of the fact, if items may have several.
        positive, negative: for these, prompts that say so and that deny it, with {} for the class.
        group: for these, the fact whose values the intervals draw, such as the patient.
    """

    def __init__(
        self,
        fact: str = "",
        modality: str = "",
        text: str = "",
        resamples: int = RESAMPLES,
        separator: str = "",
        positive: Sequence[str] = POSITIVE,
        negative: Sequence[str] = NEGATIVE,
        group: str = "",
    ) -> None:
        self.fact, self.modality, self.text, self.resamples = fact, modality, text, resamples
        self.separator, self.group = separator, group
        self.positive, self.negative = tuple(positive), tuple(negative)
        self.uses = ("facts",) if fact else ("classes",)

    def __call__(self, data: Measured) -> dict[str, Any]:
        classes = self._classes(data)
        assert classes is not None  # the job gives them to an evaluator that `uses` them
        known: dict[str, tuple[Measured, Classes]] = {}
        for name, other in data.baselines.items():
            if (theirs := self._classes(other)) is not None:
                known[name] = other, theirs
        if classes.labels.ndim == 2:
            return measure_labels(data, classes, known, self.resamples)
        found = zero_shot(
            *_labelled(data, classes),
            classes.embeddings,
            classes.names,
            data.score,
            query=classes.query,
            target=classes.target,
            resamples=self.resamples,
            seed=data.seed,
            device=data.device,
        )
        beside = self._baselines(data, classes, known)
        return {"unit": "percent", **found, "baselines": beside}

    def _baselines(
        self,
        data: Measured,
        classes: Classes,
        others: Mapping[str, tuple[Measured, Classes]],
    ) -> dict[str, dict[str, Any]]:
        """baseline → its shares, and by how much top-1 is ahead of its, paired by item."""
        first = _first(data, classes)
        count = len(classes.names)
        even, top5 = 100 / count, 100 * min(5, count) / count
        shares = {"top1": even, "top5": top5, "mean_per_class": even}
        table = {CHANCE: {**shares, **self._ahead(first - 1 / count, data)}}
        for name, (other, theirs) in others.items():
            found = zero_shot(
                *_labelled(other, theirs),
                theirs.embeddings,
                theirs.names,
                other.score,
                query=theirs.query,
                target=theirs.target,
                resamples=0,
                device=other.device,
            )
            own = {key: found[key] for key in shares}
            table[name] = {**own, **self._ahead(first - _first(other, theirs), data)}
        return table

    def _ahead(self, more: np.ndarray, data: Measured) -> dict[str, Any]:
        kinds, counts = np.unique(more, return_counts=True)
        drawn = draw_kinds(counts, self.resamples, data.seed)
        between = None if drawn is None else interval(100 * (drawn @ kinds) / len(more))
        return {"ahead": 100 * float(more.mean()), "ahead_interval": between}

    def _classes(self, data: Measured) -> Classes | None:
        """The classes of the job, or of the fact; None for a baseline that can't embed them."""
        if not self.fact:
            return data.classes
        texts = [m for m in data.modalities if data.items[m].medium.language]
        text = self.text or next(iter(texts), "text")
        modality = self.modality or next((m for m in data.modalities if m != text), "")
        for name in (modality, text):
            if name not in data.modalities and data.about:
                return None
            if name not in data.modalities:
                raise ConfigError(
                    f"The data have no modality '{name}'.",
                    f"They have {', '.join(data.modalities)}.",
                )

        def embed(names: Sequence[str], templates: Sequence[str]) -> Tensor:
            return class_embeddings(lambda texts: data.encode(text, texts), names, templates)

        templates = default_templates(modality)
        if self.separator:
            names, labels, groups = fact_labels(
                data, self.fact, modality, self.separator, self.group
            )
            pair = embed(names, self.positive), embed(names, self.negative)
            rows = embed(names, templates)
            return Classes(names, labels, rows, modality, text, pair, groups)
        labels = data.class_of(self.fact, modality)
        names = data.facts[self.fact].names
        return Classes(names, labels, embed(names, templates), modality, text)

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> list[Section]:
        if "scores" in metrics:
            return [section_of(metrics)]
        shares = {"top-1": "top1", "top-5": "top5", "mean per class": "mean_per_class"}
        cells = [Share(metrics[key], metrics[f"{key}_interval"]) for key in shares.values()]
        beside = [
            [name, *(Share(one[key]) for key in shares.values()), ahead(one)]
            for name, one in metrics["baselines"].items()
        ]
        columns = ["", *shares, "ahead at top-1"]
        tables = [Table(columns, [["this model", *cells, "–"], *beside])]
        if mistakes := _mistakes(metrics):
            columns = ["true class", "taken for", "items", "of"]
            tables.append(Table(columns, mistakes, "Most frequent mistakes"))
        classes = list(metrics["per_class"].items())
        rows = [
            [name, c["items"], Share(c["top1"]), Share(c["top5"])]
            for name, c in classes[:_MOST_CLASSES]
        ]
        folded = "Every class"
        if len(classes) > _MOST_CLASSES:
            folded = f"The first {_MOST_CLASSES} of {len(classes):,} classes"
        tables.append(Table(["class", "items", "top-1", "top-5"], rows, folded=folded))
        text = f"{metrics['items']:,} items, {len(classes):,} classes; in percent with 95% "
        return [Section("Zero-shot classification", f"{text}bootstrap intervals.", tables)]


def _labelled(data: Measured, classes: Classes) -> tuple[Tensor, Tensor]:
    """The embeddings of the items that have a class, and their classes."""
    there = classes.labels >= 0
    return data.embeddings[classes.query][there], classes.labels[there]


def _first(data: Measured, classes: Classes) -> np.ndarray:
    """float `[n]`: a one for each item with a class whose class comes first."""
    sides = data.score, classes.query, classes.target
    rank, _ = rank_classes(
        *_labelled(data, classes), classes.embeddings, *sides, device=data.device
    )
    return (rank < 1).double().numpy()


def _mistakes(metrics: Mapping[str, Any]) -> list[list[str | int]]:
    """(true, predicted, count, items of the true class): the most frequent mistakes."""
    names, counts = metrics["classes"], np.array(metrics["confusion"])
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    totals = counts.sum(axis=1)
    return [
        [names[i], names[j], int(wrong[i, j]), int(totals[i])] for i, j in places if wrong[i, j]
    ]
