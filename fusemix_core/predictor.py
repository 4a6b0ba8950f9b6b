"""`Predictor`: the artefact of fusing. Frozen encoders, a fuser and a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fusemix_core.config import Backend
from fusemix_core.errors import ArtefactError, ConfigError, DataError
from fusemix_core.fuser import Fuser, Labelled
from fusemix_core.fusers.further import with_modality
from fusemix_core.fusers.stack import Stack
from fusemix_core.interfaces import Padded, as_rows, as_tokens
from fusemix_core.prediction import Columns, Task
from fusemix_core.saved.card import CardText, model_card, saved_by
from fusemix_core.saved.components import Built
from fusemix_core.saved.encoders import Source
from fusemix_core.saved.model import SavedModel
from fusemix_core.saved.schema import EncoderInfo, SavedConfig
from fusemix_core.tasks.conformal import Conformal

_ROWS = 4096
"""Rows that are predicted at once."""


class Predictor(SavedModel):
    """Predicts from several modalities. A row may lack some of them.

    Args:
        encoders: modality → what its latents came from.
        fuser: takes the latents of these modalities, in this order.
        task: what is predicted.
        more: as in `SavedModel`. `metrics["expected"]` says what to expect of each combination of
            modalities, such as `"image + text"`, and `metrics["conformal"]` how prediction sets are
            made.

    Example:
        predictor = fusemix_core.load("runs/houses/model")
        predictor.predict({"image": ["a.jpg", None], "table": [{"beds": 3}, {"beds": 2}]})
    """

    kind = "predictor"
    made_by = "`fusemix fuse`"

    def __init__(
        self,
        encoders: Mapping[str, EncoderInfo],
        fuser: Fuser,
        task: Task,
        **more: Any,
    ) -> None:
        if list(fuser.inputs) != list(encoders) or fuser.outputs != task.outputs:
            raise ConfigError(
                f"The fuser takes {', '.join(fuser.inputs)} and gives {fuser.outputs} scores; the "
                f"encoders are of {', '.join(encoders)}, and the task has {task.outputs} outputs."
            )
        self.fuser, self.task = fuser, task
        parts = {
            "fuser": Built(fuser, (fuser.inputs, fuser.outputs)),
            "task": Built(task, ()),
        }
        super().__init__(encoders, parts, **more)

    @classmethod
    def from_parts(
        cls, encoders: Mapping[str, EncoderInfo], parts: Mapping[str, Built], **more: Any
    ) -> Self:
        """The predictor of loaded parts: a fuser and a task."""
        if set(parts) != {"fuser", "task"}:
            raise ArtefactError(
                f"A predictor has a fuser and a task; this one has {', '.join(parts)}."
            )
        try:
            return cls(encoders, parts["fuser"].component, parts["task"].component, **more)
        except ConfigError as error:
            raise ArtefactError(error.message) from error

    @property
    def conformal(self) -> Conformal | None:
        """The maker of prediction sets or intervals; None if the task has none."""
        saved = self.metrics.get("conformal")
        return None if saved is None else Conformal.of(saved)

    # -- predicting ------------------------------------------------------------------------------

    def predict(self, items: Mapping[str, Iterable[Any]], **how: Any) -> list[Any]:
        """The prediction of each row: a class, a number, a risk.

        Args:
            items: modality → an item per row, None if it is missing. A modality may be left out
                altogether; each row needs one. Items are those of `FusedModel.encode`; of a table
                they are dicts, column → value.
            how: `batch_size` and `backend`, as in `FusedModel.encode`.

        Raises:
            DataError: a row has no item, or an item can't be decoded.
            ArtefactError: an encoder is not the one of the fit.
        """
        lists = {m: list(own) for m, own in items.items()}
        columns = self.columns(self.scores(lists, **how))
        return list(self.task.described(columns, lists)["prediction"])

    def predict_proba(self, items: Mapping[str, Iterable[Any]], **how: Any) -> np.ndarray:
        """The probabilities of each row `[n, classes]`, in the order of
        `task.columns`; values `[n]`; or survival `[n, times]`. Arguments and errors are those of
        `predict`."""
        scores = self.scores(items, **how)
        return self.task.probabilities(scores.double()).numpy()

    def scores(
        self,
        items: Mapping[str, Iterable[Any]],
        *,
        batch_size: int | None = None,
        backend: Backend = "auto",
    ) -> Tensor:
        """The scores float32 `[n, C]` of the task; arguments and errors are those of `predict`."""
        lists = {m: self._as_items(m, rows) for m, rows in items.items()}
        lengths = {m: len(rows) for m, rows in lists.items()}
        if len(set(lengths.values())) != 1:
            raise ConfigError(
                f"Each modality has an item per row; these have {lengths or 'nothing'}.",
                "Write None where an item is missing.",
            )
        count = next(iter(lengths.values()))
        latents: dict[str, Tensor | Padded] = {}
        present = torch.zeros(count, len(self.modalities), dtype=torch.bool)
        for k, m in enumerate(self.modalities):
            there = [i for i, item in enumerate(lists.get(m, [])) if item is not None]
            present[there, k] = True
            own = [lists[m][i] for i in there]
            found = self.latents(m, own, batch_size, backend=backend)
            latents[m] = spread(self._form(m, found), there, count)
        return self.score(latents, present)

    def score(
        self, latents: Mapping[str, Tensor | Padded], present: Tensor | None = None
    ) -> Tensor:
        """The scores float32 `[n, C]` of latents.

        Args:
            latents: modality → latents of the n rows, in the view of the fit.
            present: bool `[n, K]` in the order of `modalities`: which each row has; all, if None.

        Raises:
            DataError: a row has none.
        """
        count = len(next(iter(latents.values())))
        if present is None:
            here = torch.tensor([m in latents for m in self.modalities])
            present = here.expand(count, -1)
        if not present.any(dim=1).all():
            row = int((~present.any(dim=1)).nonzero()[0])
            raise DataError(
                f"Row {row + 1:,} has none of the modalities {', '.join(self.modalities)}.",
                "A prediction needs one of them, at least.",
            )
        parts = [torch.zeros(0, self.task.outputs)]
        whole = {m: self._form(m, latents[m]) if m in latents else None for m in self.modalities}
        for start in range(0, count, _ROWS):
            rows = slice(start, start + _ROWS)
            own = {
                m: self._nothing(m, len(present[rows])) if x is None else x[rows].to(self.device)
                for m, x in whole.items()
            }
            with torch.no_grad():
                parts.append(self.fuser(own, present[rows].to(self.device)).float().cpu())
        return torch.cat(parts)

    def columns(self, scores: Tensor, present: Tensor | None = None) -> Columns:
        """The columns of a table of predictions: those of `Task.decode`; the prediction set or
        interval; and, with `present` (bool `[n, K]`), the modalities used and the
        primary metric to expect with these."""
        found = self.task.decode(scores)
        if (conformal := self.conformal) is not None:
            found |= _sets(self.task, conformal, scores)
        if present is not None:
            used = [combination(self.modalities, row) for row in present.tolist()]
            expected = self.metrics.get("expected", {})
            found["modalities"] = used
            found[f"expected_{self.task.primary}"] = [expected.get(one) for one in used]
        return found

    # -- growing ---------------------------------------------------------------------------------

    def with_modality(
        self, info: EncoderInfo, rows: Labelled, source: Source | None = None
    ) -> Predictor:
        """A predictor that takes one more modality. This one is not changed.

        The fuser is `stack`. Former modalities are not fitted again: without the new one, every
        prediction is as before. What was measured of this predictor, such as its intervals, is left
        out; the measures to expect of former combinations stay.

        Args:
            info: the encoder of the new modality, such as `load("runs/sound").encoders["sound"]`.
            rows: with a target, whose last modality is the new one; rows that this predictor was
                not fitted to.
            source: what to load in place of the encoder's saved name.

        Raises:
            ConfigError: the fuser is another, or the rows have other modalities.

        Example:
            larger = predictor.with_modality(other.encoders["sound"], rows)
        """
        kept = {name: self.metrics[name] for name in ("expected",) if name in self.metrics}
        sources = self._sources if source is None else {**self._sources, info.modality: source}
        return Predictor(
            {**self.encoders, info.modality: info},
            with_modality(stack_of(self), rows, self.task),
            self.task,
            sources=sources,
            recipe=self.recipe,
            data=self.data,
            metrics=kept,
            device=self.device,
            registry=self.registry,
        )

    def _form(self, modality: str, latents: Tensor | Padded) -> Tensor | Padded:
        """Latents of any view in the form that the fuser takes."""
        if "tokens" in self.fuser.uses:
            return as_tokens(latents)
        return as_rows(latents, self.fuser.inputs[modality])

    def _nothing(self, modality: str, count: int) -> Tensor | Padded:
        """The latents of rows that all lack a modality."""
        zeros = torch.zeros(count, self.fuser.inputs[modality], device=self.device)
        if "tokens" not in self.fuser.uses:
            return zeros
        return Padded(zeros[:, None], torch.zeros(count, 1, dtype=torch.bool, device=self.device))

    def card(self, config: SavedConfig, name: str) -> str:
        """The model card."""
        task = config.parts["task"].name
        summary = (
            f"Predicts ({task}) from {' and '.join(config.encoders)}: the fuser "
            f"{config.parts['fuser'].name} on frozen encoders, {saved_by(config)}. Any of them may "
            "be missing."
        )
        rows = ", ".join(f"{m!r}: [...]" for m in config.encoders)
        code = [f"model.predict({{{rows}}})"]
        limitations = ["It is measured on rows like those it was fitted to."]
        return model_card(
            config, name, CardText(summary, "Predictor", code, limitations=limitations)
        )


def stack_of(predictor: Predictor) -> Stack:
    """The fuser of a predictor that can take a further modality.

    Raises:
        ConfigError: it is not a `stack`.
    """
    if not isinstance(predictor.fuser, Stack):
        raise ConfigError(
            "Only the fuser 'stack' takes a further modality without a new fit.",
            "Fit again with all modalities, or with --fuser stack.",
        )
    return predictor.fuser


def combination(modalities: Sequence[str], present: Sequence[bool]) -> str:
    """The name of a combination of modalities, such as `image + text`."""
    return " + ".join(m for m, there in zip(modalities, present, strict=True) if there)


def spread(latents: Tensor | Padded, rows: Sequence[int], count: int) -> Tensor | Padded:
    """Latents of some of `count` rows as those of all, with nothing in the others."""
    index = torch.tensor(list(rows), dtype=torch.long)
    if isinstance(latents, Padded):
        values = latents.values.new_zeros(count, *latents.values.shape[1:])
        mask = latents.mask.new_zeros(count, latents.mask.shape[1])
        values[index], mask[index] = latents.values, latents.mask
        return Padded(values, mask)
    found = latents.new_zeros(count, *latents.shape[1:])
    found[index] = latents
    return found


def _sets(task: Task, conformal: Conformal, scores: Tensor) -> Columns:
    """The columns of prediction sets, or of intervals."""
    if task.gives == "values":
        low, high = conformal.intervals(task, scores).T.numpy()
        return {"low": low, "high": high}
    names = np.array(task.columns, dtype=object)
    return {"set": [" | ".join(names[row.numpy()]) for row in conformal.sets(task, scores)]}
