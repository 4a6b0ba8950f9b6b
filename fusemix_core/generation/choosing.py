"""Which correction suits a pair of modalities, by embeddings of validation pairs. Nothing is
generated for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.interfaces import Correction

TOLERANCE = 0.05
"""How far a condition may be from the right one: `exp((cosine - 1) / TOLERANCE)` is what such a
condition counts, a Gaussian about as wide as the noise that generators are trained with."""

USUAL = "norm"
"""The correction to use unless another one is better beyond noise."""

_BEYOND = 2.0
"""Standard errors."""
_NOTHING = 1e-3
"""A smaller gain is none."""
_LEAST = 8
"""With fewer validation pairs nothing can be chosen."""


@dataclass(frozen=True)
class Measures:
    """The effect of a correction on the embeddings of validation pairs.

    Attributes:
        close: mean of `exp((cosine - 1) / 0.05)` of a corrected embedding and its own latent: how
            many arrive where a generator takes them for the right ones.
        cosine: their mean cosine.
        r1: the share of embeddings whose own latent is the nearest of all validation latents.
        length: mean length, as a share of that of the latents.
        gap: distance of the means of corrected embeddings and latents, both at length 1.
    """

    close: float
    cosine: float
    r1: float
    length: float
    gap: float


@dataclass(frozen=True)
class Tried:
    """Corrections tried on validation pairs: which is chosen, and what was measured, by name."""

    chosen: str
    measures: Mapping[str, Measures]

    def as_dict(self) -> dict[str, object]:
        """As results.json has it, numbers rounded."""
        found = {
            name: {k: round(v, 4) for k, v in asdict(measures).items()}
            for name, measures in self.measures.items()
        }
        return {"chosen": self.chosen, **found}


@torch.no_grad()
def try_corrections(
    corrections: Mapping[str, Correction],
    source: str,
    target: str,
    rows: Tensor,
    latents: Tensor,
    bank: Tensor | None = None,
) -> Tried:
    """Try corrections on validation pairs.

    The first by `close` is chosen, else by `cosine`, if it is above `norm` by more than two
    standard errors of the difference. Otherwise `norm` is.

    Args:
        corrections: name → fitted correction, `norm` among them.
        source, target: the modality that is corrected, and the fixed one.
        rows: unit-norm embeddings of `source`, `[n, d]`.
        latents: of the items of `target` that they are paired with, `[n, d]`.
        bank: that of a generator; see `Correction.apply`.
    """
    if not len(rows):
        return Tried(USUAL, {})
    unit = normalize(latents.float(), dim=1)
    gallery, own = unit.unique(dim=0, return_inverse=True)
    length = float(latents.float().norm(dim=1).mean())
    seeds = range(len(rows))
    cosines: dict[str, Tensor] = {}
    measures: dict[str, Measures] = {}
    for name, correction in corrections.items():
        corrected = correction(rows, source, target, seeds, bank)
        found = normalize(corrected, dim=1)
        cosine = cosines[name] = (found * unit).sum(1)
        measures[name] = Measures(
            close=float(_close(cosine).mean()),
            cosine=float(cosine.mean()),
            r1=float(((found @ gallery.T).argmax(1) == own).float().mean()),
            length=float(corrected.norm(dim=1).mean()) / length if length else 0.0,
            gap=float((found.mean(0) - unit.mean(0)).norm()),
        )
    return Tried(_best(cosines), measures)


def _best(cosines: Mapping[str, Tensor]) -> str:
    """The name of the correction that is better than the usual one beyond noise, or that one."""
    for measure in (_close, Tensor.double):
        values = {name: measure(cosine).double() for name, cosine in cosines.items()}
        best = max(values, key=lambda name: (float(values[name].mean()), name == USUAL))
        gain = values[best] - values[USUAL]
        if len(gain) < _LEAST or best == USUAL:
            continue
        noise = _BEYOND * float(gain.std()) / math.sqrt(len(gain))
        if float(gain.mean()) > max(noise, _NOTHING):
            return best
    return USUAL


def _close(cosine: Tensor) -> Tensor:
    return ((cosine.double() - 1) / TOLERANCE).exp()
