"""`tag`: a label for each token of a modality, such as each word of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.marked import LEGEND, Word, marked
from fusemix_core.prediction import Columns, Show, Targets, Task
from fusemix_core.sections import Figure, Section
from fusemix_core.tasks.box import examples_of
from fusemix_core.tasks.coding import as_text, as_texts, defined, fact_of, mean_of

MOST = 256
"""Tokens of an item that have labels, at most."""
LONGEST = 4096
"""Tokens of a row that a task may have, at most."""


class Tag(Task):
    """A label for each token: the cell of a row has them with spaces between, `0 0 1 0`, in the
    order of the tokens. Scores are logits of each label of each token, the loss is the mean
    cross-entropy over tokens.

    Of texts, the view `tokens-words` has one token per word. A fuser that scores the tokens
    themselves suits, such as `attention`; others predict by place.

    Args:
        modality: whose tokens they are.
        none: the label that says nothing about a token, which precision, recall and F1 leave out;
            `learn` takes the most frequent one.
        labels: their names, which `learn` takes from the facts.
        length: tokens of an item that are scored, which `learn` takes from the longest row.

    Example:
        task = Tag.learn({"target": Fact("text", np.array([0, 1]), ("O O NAME", "O"))})
        task.targets(facts).values  # [n, length · labels]: 1 for the label of each token
    """

    primary = "f1"
    kind = "text"
    views = ("tokens-words", "time", "tokens", "grid")
    fuser = "attention"
    beside = ()

    def __init__(
        self,
        *,
        modality: str = "text",
        none: str = "",
        labels: Sequence[str] = (),
        length: int = 0,
    ) -> None:
        if not 0 <= length <= LONGEST:
            raise ConfigError(f"tag has length={length}.", f"It is 0 to {LONGEST:,} tokens.")
        self.tagged, self.labels, self.length = modality, tuple(as_texts(labels)), length
        self.none = self.labels.index(none) if none in self.labels else 0
        self.names = tuple(f"{name} {k + 1}" for k in range(length) for name in self.labels)

    @classmethod
    def learn(cls, facts: Mapping[str, Fact], **options: Any) -> Tag:
        rows = tags_of(fact_of(facts, "target"))
        counts: dict[str, int] = {}
        for row in rows:
            for label in row or ():
                counts[label] = counts.get(label, 0) + 1
        labels = as_texts(options.get("labels")) or sorted(counts)
        none = as_text(options.get("none")) or max(labels, key=lambda name: counts.get(name, 0))
        if len(labels) < 2:
            raise DataError(
                f"The target has the label '{labels[0]}' only: there is nothing to predict.",
                "Name a column with a label per token, such as 0 0 1 0: --target COLUMN:text",
            )
        if none not in labels:
            raise ConfigError(
                f"The label '{none}' for nothing is none of {', '.join(labels)}.",
                "Name one of them: --task 'tag none=O'",
            )
        longest = max(len(row or ()) for row in rows)
        length = int(options.get("length") or min(MOST, longest))
        learnt: dict[str, Any] = {"labels": labels, "none": none, "length": length}
        return cls(**{**options, **learnt})

    def targets(self, facts: Mapping[str, Fact]) -> Targets:
        """float32 and bool `[n, length · labels]`: 1 for the label of each token; tokens beyond
        those of the row, or with a label that training hadn't, aren't known."""
        place = {name: k for k, name in enumerate(self.labels)}
        rows = tags_of(facts["target"])
        values = torch.zeros(len(rows), self.length, len(self.labels))
        known = torch.zeros(values.shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            for k, label in enumerate((row or ())[: self.length]):
                if label in place:
                    values[i, k, place[label]] = 1
                    known[i, k] = True
        return Targets(values.flatten(1), known.flatten(1))

    def unseen(self, facts: Mapping[str, Fact]) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in tags_of(facts["target"]):
            for label in set(row or ()) - set(self.labels):
                found[label] = found.get(label, 0) + 1
        return found

    def notes(self, facts: Mapping[str, Fact]) -> list[str]:
        longer = sum(len(row or ()) > self.length for row in tags_of(facts["target"]))
        if not longer:
            return []
        return [f"{longer:,} training rows have more than {self.length} labels: the rest is cut."]

    def responses(self, targets: Targets) -> tuple[Tensor, Tensor]:
        return (2 * targets.values - 1) * targets.known, targets.known

    def loss(self, scores: Tensor, targets: Targets, weight: Tensor | None = None) -> Tensor:
        return token_loss(self._each(scores), *self._of(targets, scores), weight)

    def probabilities(self, scores: Tensor) -> Tensor:
        """float `[n, length, labels]`."""
        return self._each(scores).softmax(dim=2)

    def decode(self, scores: Tensor) -> Columns:
        """`prediction` has the labels of `length` tokens; `described` cuts them to those there."""
        chosen = self._each(scores.detach().cpu()).argmax(dim=2).tolist()
        return {"prediction": [" ".join(self.labels[k] for k in row) for row in chosen]}

    def described(self, columns: Columns, items: Mapping[str, Sequence[Any]]) -> Columns:
        """The labels of a text's own words, and the `words` that have one other than `none`."""
        texts = items.get(self.tagged)
        if texts is None or not all(text is None or isinstance(text, str) for text in texts):
            return columns
        split = [(text or "").split() for text in texts]
        tags = [tag.split() for tag in columns["prediction"]]
        cut = [" ".join(t[: len(words)]) for t, words in zip(tags, split, strict=True)]
        marked = [
            marked_words(words, [self.labels.index(one) for one in t], self.none, self.labels)
            for words, t in zip(split, tags, strict=True)
        ]
        return {**columns, "prediction": cut, "words": marked}

    def sections(self, scores: Tensor, targets: Targets, show: Show) -> Sequence[Section]:
        """Some texts of test rows, with the words that have a label other than `none`."""
        values, known = self._of(targets, scores)
        found, true = (self._each(scores).argmax(2), values.argmax(2))
        figures = []
        for row in examples_of(((true != self.none) & known).any(dim=1)):
            item = show(row).get(self.tagged)
            if item is not None and item.text:
                both = (found[row] != self.none).tolist(), (true[row] != self.none).tolist()
                drawn = marked(words=words_of(item.text, *both))
                figures.append(Figure(drawn, alt="A text with words that are marked"))
        return [Section("Words", LEGEND, figures=figures)] if figures else []

    def metrics(self, scores: Tensor, targets: Targets) -> dict[str, float | None]:
        """Precision, recall and F1 of the tokens with a label other than `none`, over all known
        tokens and, as `f1_tagged`, over those of rows that have such a label; and the share of
        tokens that are right."""
        if not targets.known.any():
            raise DataError(
                f"No token is known in any of {len(targets):,} rows: nothing can be measured.",
                "Fill in the target's column, or predict without measuring.",
            )
        values, known = self._of(targets.to("cpu"), scores.cpu())
        found = self._each(scores.detach().cpu()).argmax(dim=2)
        return defined(tag_metrics(found, values.argmax(dim=2), known, self.none))

    def baseline(self, targets: Targets) -> Tensor:
        """The logarithm of each label's share at each place."""
        values, known = self._of(targets, targets.values)
        return share_logits(values, known).flatten()

    def average(self, scores: Sequence[Tensor]) -> Tensor:
        means = torch.stack([self._each(one).softmax(dim=2) for one in scores]).mean(dim=0)
        return means.clamp(min=1e-7).log().flatten(1)

    def _each(self, scores: Tensor) -> Tensor:
        """`[n, length, labels]`."""
        return scores.unflatten(1, (self.length, len(self.labels)))

    def _of(self, targets: Targets, like: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot labels `[n, length, labels]`, and which tokens are known, bool `[n, length]`."""
        return self._each(targets.values).to(like), self._each(targets.known)[:, :, 0]


def words_of(text: str, found: Sequence[bool], true: Sequence[bool]) -> list[Word]:
    """The words of a text, marked; those beyond the marks aren't."""
    words = text.split()
    more = [False] * max(0, len(words) - len(found))
    marks = zip(words, [*found, *more], [*true, *more], strict=False)
    return [Word(*one) for one in marks]


def tags_of(fact: Fact) -> list[tuple[str, ...] | None]:
    """The labels of each row, None if it has none.

    Raises:
        DataError: the fact is not a text.
    """
    if fact.kind != "text":
        raise DataError(
            f"Labels of tokens are read as text; the target was read as {fact.kind}.",
            "Say so: --target COLUMN:text",
        )
    split = [tuple(name.split()) or None for name in fact.names]
    return [split[k] if k >= 0 else None for k in fact.values.tolist()]


def token_loss(logits: Tensor, values: Tensor, known: Tensor, weight: Tensor | None) -> Tensor:
    """The mean cross-entropy over known tokens.

    Args:
        logits, values: `[n, T, C]`; the second is one-hot.
        known: bool `[n, T]`.
        weight: `[n]`, of rows, or None.
    """
    each = -(values * logits.log_softmax(dim=2)).sum(dim=2)
    return mean_of(each, known, weight)


def share_logits(values: Tensor, known: Tensor, prior: float = 1e-3) -> Tensor:
    """float32 `[T, C]`: the logarithm of each label's share at each place, over one-hot `[n, T, C]`
    where bool `[n, T]` is known; a little of the share over all places keeps it finite."""
    counts = (values.double() * known[:, :, None]).sum(dim=0)
    every = counts.sum(dim=0) + prior
    mixed = counts + prior * every / every.sum()
    return (mixed / mixed.sum(dim=1, keepdim=True)).log().float()


def tag_metrics(found: Tensor, wanted: Tensor, known: Tensor, none: int) -> dict[str, float]:
    """The measures of `Tag.metrics`, NaN where undefined; F1 is 0 if nothing is found though
    something is there.

    Args:
        found, wanted: int64 `[n, T]`, labels by number.
        known: bool `[n, T]`.
        none: the label that says nothing.
    """
    rows = ((wanted != none) & known).any(dim=1)
    precision, recall, f1 = _hits(found, wanted, known, none)
    tagged = _hits(found[rows], wanted[rows], known[rows], none)
    right = (found == wanted)[known]
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "precision_tagged": tagged[0],
        "f1_tagged": tagged[2],
        "accuracy": float(right.double().mean()) if len(right) else float("nan"),
    }


def _hits(found: Tensor, wanted: Tensor, known: Tensor, none: int) -> tuple[float, float, float]:
    """(precision, recall, F1) of labels other than `none`."""
    hits = int((known & (found == wanted) & (wanted != none)).sum())
    claims, there = (int((known & (x != none)).sum()) for x in (found, wanted))
    nan = float("nan")
    return (
        hits / claims if claims else nan,
        hits / there if there else nan,
        2 * hits / (claims + there) if claims + there else nan,
    )


def marked_words(
    words: Sequence[str], labels: Sequence[int], none: int, names: Sequence[str]
) -> str:
    """The words with a label other than `none`, separated by `; `. With several such labels each is
    followed by its own, in brackets."""
    several = len(names) > 2
    marks = (f" ({names[k]})" if several else "" for k in labels)
    each = zip(words, labels, marks, strict=False)
    return "; ".join(word + mark for word, k, mark in each if k != none)
