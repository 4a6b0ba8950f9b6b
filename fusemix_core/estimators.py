"""Fusing as estimators of scikit-learn, on arrays of latents. Needs `fusemix[sklearn]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from fusemix_core.config import Part
from fusemix_core.context import FitContext
from fusemix_core.data.facts import Fact
from fusemix_core.devices import resolve_device
from fusemix_core.errors import MissingDependencyError
from fusemix_core.fuser import Fitted, Labelled
from fusemix_core.fusion.candidates import scores_of
from fusemix_core.fusion.folds import INNER, assigned
from fusemix_core.fusion.parts import Part as Rows
from fusemix_core.fusion.parts import measures
from fusemix_core.paired import PairedLatents, ResidentLatents
from fusemix_core.prediction import Targets, Task
from fusemix_core.registry import registry
from fusemix_core.tasks.classify import Classify
from fusemix_core.tasks.regress import Regress

EXTRA = "fusemix[sklearn]"
try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets

    # pyrefly: ignore[missing-module-attribute]  # its stubs are of an older scikit-learn
    from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise MissingDependencyError.of("FusionClassifier", "sklearn", EXTRA) from error

Blocks = Mapping[str, "slice | int"]
ONLY = "latents"
"""The modality of an array without `blocks`."""
AUTO = ("stack", "block")
"""The fusers that `auto` chooses from, the simpler first."""


def side_by_side(latents: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, slice]]:
    """The latents of several modalities as one array, for scikit-learn's own tools.

    `GridSearchCV`, `cross_val_score` and pipelines take some of the rows of an array; they can't
    take some rows of a dict.

    Args:
        latents: modality → array `[n, d]`; a row of NaN if the row lacks it.

    Returns:
        (array `[n, sum of d]`; modality → its columns, for the parameter `blocks`).

    Example:
        X, blocks = side_by_side({"image": image_latents, "text": text_latents})
        cross_val_score(FusionClassifier(blocks=blocks), X, y)
    """
    arrays = {m: np.asarray(one) for m, one in latents.items()}
    ends = np.cumsum([one.shape[1] for one in arrays.values()]).tolist()
    starts = [0, *ends[:-1]]
    blocks = {m: slice(a, b) for m, a, b in zip(arrays, starts, ends, strict=True)}
    return np.concatenate(list(arrays.values()), axis=1), blocks


class _Fusion(BaseEstimator):
    """The base of `FusionClassifier` and `FusionRegressor`."""

    def __init__(
        self,
        fuser: str = "auto",
        *,
        options: Mapping[str, Any] | None = None,
        blocks: Blocks | None = None,
        random_state: Any = 0,
        device: str = "cpu",
    ) -> None:
        self.fuser = fuser
        self.options = options
        self.blocks = blocks
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        # pyrefly: ignore[missing-attribute]  # its stubs are of an older scikit-learn
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # -- fitting ---------------------------------------------------------------------------------

    def _fit(self, latents: dict[str, np.ndarray], task: Task, y: Targets, groups: Any) -> Self:
        every = self._labelled(latents, y, groups)
        rows = every.select(every.present.any(dim=1).nonzero()[:, 0])
        if not len(rows):
            raise ValueError("Every row of X is NaN: no row has any modality.")
        seed = int(check_random_state(self.random_state).randint(2**31))
        context = FitContext(device=resolve_device(self.device), seed=seed)
        if self.fuser == "auto":
            if self.options:
                raise ValueError("The fuser 'auto' has no options. Name one: fuser='block'")
            self.fuser_name_, fitted = _better(rows, task, context)
        else:
            self.fuser_name_ = self.fuser
            fitted = _fitted(Part(self.fuser, dict(self.options or {})), rows, task, context)
        self.fuser_, self.task_ = fitted.fuser, task
        self.baseline_ = task.baseline(rows.targets)
        return self

    def _labelled(self, latents: dict[str, np.ndarray], y: Targets, groups: Any) -> Labelled:
        count = len(y)
        names = np.arange(count) if groups is None else column_or_1d(groups)
        if len(names) != count:
            raise ValueError(f"groups has {len(names)} entries, and X has {count} rows.")
        index = np.unique(names, return_inverse=True)[1].astype(np.int64)
        tables, links = {}, []
        for m, one in latents.items():
            gone = np.isnan(one)
            missing = gone.all(axis=1)
            if (gone.any(axis=1) & ~missing).any():
                row = int(np.flatnonzero(gone.any(axis=1) & ~missing)[0])
                raise ValueError(
                    f"Row {row} of {m} has NaN in some columns. A modality that is missing is NaN "
                    "in all of its columns; impute other gaps first."
                )
            links.append(np.where(missing, -1, np.arange(count)))
            tables[m] = ResidentLatents(torch.tensor(np.nan_to_num(one), dtype=torch.float32))
        pairs = PairedLatents(tables, torch.from_numpy(np.stack(links, axis=1)))
        return Labelled(pairs, y, torch.from_numpy(index))

    def _taken(self, X: Any, *target: Any) -> tuple[dict[str, np.ndarray], Any]:
        """(modality → float array `[n, d]`, y as scikit-learn checks it); a `target` to fit."""
        fits, y = bool(target), None
        how: dict[str, Any] = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
        if isinstance(X, Mapping) and not hasattr(X, "shape"):  # a sparse array may be a dict
            arrays = {m: check_array(one, input_name=f"X[{m!r}]", **how) for m, one in X.items()}
            X, blocks = side_by_side(self._whole(arrays, fits))
        else:
            blocks = None
        how["ensure_min_samples"] = 2 if fits else 1
        if fits:
            how["y_numeric"] = isinstance(self, RegressorMixin)
            X, y = validate_data(self, X, *target, **how)
            self.blocks_ = blocks or self._columns(X.shape[1])
        else:
            X = validate_data(self, X, reset=False, **how)
        return {m: X[:, columns] for m, columns in self.blocks_.items()}, y

    def _whole(self, arrays: dict[str, np.ndarray], fits: bool) -> dict[str, np.ndarray]:
        """The arrays of all modalities, in order: NaN for those that a prediction lacks."""
        lengths = {m: len(one) for m, one in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Each modality has a row for each y; these have {lengths}.")
        if fits:
            return arrays
        if unknown := sorted(set(arrays) - set(self.blocks_)):
            raise ValueError(f"{unknown[0]!r} is not among the modalities {list(self.blocks_)}.")
        count = next(iter(lengths.values()))
        widths = {m: one.stop - one.start for m, one in self.blocks_.items()}
        return {m: arrays.get(m, np.full((count, d), np.nan)) for m, d in widths.items()}

    def _columns(self, width: int) -> dict[str, slice]:
        """The columns of each modality in an array."""
        found, at = {}, 0
        for m, one in (self.blocks or {ONLY: width}).items():
            start, stop, step = (
                one.indices(width) if isinstance(one, slice) else (at, at + int(one), 1)
            )
            if step != 1 or not start < stop <= width:
                raise ValueError(f"blocks[{m!r}] is {one}, and X has {width} columns.")
            found[m], at = slice(start, stop), stop
        return found

    # -- predicting ------------------------------------------------------------------------------

    def _scores(self, X: Any) -> torch.Tensor:
        check_is_fitted(self, "fuser_")
        latents, _ = self._taken(X)
        count = len(next(iter(latents.values())))
        nothing = Targets(torch.zeros(count), torch.zeros(count, dtype=torch.bool))
        rows = self._labelled(latents, nothing, None)
        return scores_of(self.fuser_, rows, self.baseline_).double()


class FusionClassifier(ClassifierMixin, _Fusion):
    """Classifies rows from the latents of several modalities. A row may lack some of them.

    Args:
        fuser: how modalities are combined: `stack`, `block`, `concat`, `mlp`, `attention` or
            another registered one. `auto` is the better of `stack` and `block` on training rows
            that are left out, exactly; ties within one standard error are `stack`. A fuser that is
            trained by gradient keeps a tenth of the rows for validation.
        options: of the fuser, such as `{"rank": 64}`.
        blocks: modality → its columns if X is an array: slices, or widths of blocks side by side.
            An array without `blocks` is one modality.
        random_state: an int, a `RandomState` or None: seeds what is drawn in a fit.
        device: where fusers that are trained by gradient are.

    Attributes:
        classes_: the classes.
        fuser_: the fuser that was fitted, and `fuser_name_`, its name.
        blocks_: modality → its columns, of all modalities side by side.
        n_features_in_: the columns of all modalities.

    Example:
        X = {"image": image_latents, "text": text_latents}  # [n, 512] and [n, 384]
        model = FusionClassifier().fit(X, y)
        model.predict({"image": new_image_latents})  # a modality may be missing
        X, blocks = side_by_side(X)  # for GridSearchCV, cross_val_score and pipelines
        grid = GridSearchCV(FusionClassifier(blocks=blocks), {"fuser": ["stack", "block"]})
    """

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fit to rows with a class.

        Args:
            X: modality → array `[n, d]`, or an array `[n, d]` (see `blocks`). A row that lacks a
                modality is NaN there.
            y: `[n]`, classes.
            groups: `[n]`; rows of a group, such as a patient, are left out together.

        Raises:
            ValueError: X and y can't be used, and why.
        """
        latents, y = self._taken(X, y)
        check_classification_targets(y)
        self.classes_, index = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: there is nothing to learn.")
        fact = Fact("class", index.astype(np.int64), _numbered(len(self.classes_)))
        task = Classify.learn({"target": fact})
        return self._fit(latents, task, task.targets({"target": fact}), groups)

    def predict_proba(self, X: Any) -> np.ndarray:
        """float64 `[n, classes]`: the calibrated probability of each of `classes_`. A row without
        any modality has the shares of the training rows."""
        scores = self._scores(X)
        return self.task_.probabilities(scores).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """`[n]`: the most probable class of each row."""
        scores = self._scores(X)
        return self.classes_[scores.argmax(dim=1).numpy()]


class FusionRegressor(RegressorMixin, _Fusion):
    """Predicts a number from the latents of several modalities. A row may lack some of them.

    Parameters and attributes are those of `FusionClassifier`, without `classes_`.

    Example:
        model = FusionRegressor().fit({"image": image_latents, "text": text_latents}, prices)
        model.predict({"image": new_image_latents})
    """

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fit to rows with a number `y`; arguments and errors as in `FusionClassifier.fit`."""
        latents, y = self._taken(X, y)
        values = column_or_1d(y, warn=True).astype(np.float64)
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        task = Regress(mean=mean, scale=scale)
        standard = torch.from_numpy(((values - mean) / scale).astype(np.float32))
        known = torch.ones(len(values), dtype=torch.bool)
        return self._fit(latents, task, Targets(standard, known), groups)

    def predict(self, X: Any) -> np.ndarray:
        """float64 `[n]`. A row without any modality has the mean of the training rows."""
        scores = self._scores(X)
        return self.task_.probabilities(scores).numpy()


def _better(rows: Labelled, task: Task, context: FitContext) -> tuple[str, Fitted]:
    """The better of the closed forms on rows that were left out, and its name."""
    names = AUTO if len(rows.modalities) > 1 else AUTO[:1]
    fits = {name: _fitted(Part(name), rows, task, context) for name in names}
    scores = {name: one.left_out for name, one in fits.items()}
    part = Rows(task, rows.targets, rows.groups.numpy(), scores, np.arange(len(rows)))
    name = measures([part]).simplest(names) if len(names) > 1 else names[0]
    return name, fits[name]


def _fitted(part: Part, rows: Labelled, task: Task, context: FitContext) -> Fitted:
    """A fuser fitted to rows; some are for validation if it needs that."""
    target = registry.target_of(registry.check("fuser", part))
    rows = rows.as_taken_by(target)
    held = np.zeros(len(rows), bool)
    if not target.closed:
        held = assigned(rows.groups.numpy(), round(1 / INNER), context.seed) == 0
    train, validation = (rows.select(torch.from_numpy(np.flatnonzero(r))) for r in (~held, held))
    return target.fit(train, validation, task, context, **part.options)


def _numbered(count: int) -> tuple[str, ...]:
    """Names of classes that sort as their numbers do."""
    return tuple(f"{k:0{len(str(count))}}" for k in range(count))
