"""`glance`: a fuser that learns which moments of a clip matter, and which region of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.attention import Layer
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.interfaces import Padded
from fusemix_core.modules import Modules
from fusemix_core.prediction import Targets
from fusemix_glance.teacher import CHUNK, Teacher

Parts = list[tuple[Tensor, Tensor]]
"""Of each modality the standardised tokens `[n, M, R, d]`, and bool which of them are there."""

_NEVER = -1e30
_SHARP = 1.4
"""Log of the factors of both softmaxes at first. At 0 all moments count nearly alike, so the task
doesn't notice what the saliency learns."""


@dataclass(frozen=True)
class Glance:
    """The cheap pass over n clips.

    Attributes:
        saliency: float `[n, M]`: how much each moment counts; a row's sum is 1.
        regions: float `[n, M, R]`: how much each region of a moment counts; 0 if it shows nothing.
        vectors: float `[n, M, width]`: what was seen and heard at each moment.
    """

    saliency: Tensor
    regions: Tensor
    vectors: Tensor

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The moments to look at and their regions, int64 `[n, count]`, most salient first."""
        moments = self.saliency.topk(min(count, self.saliency.shape[1]), dim=1).indices
        return moments, self.regions_of(moments)

    def regions_of(self, moments: Tensor) -> Tensor:
        """The region that counts most of each of these moments, int64 like `moments`."""
        if not self.regions.shape[2]:
            return torch.zeros_like(moments)
        return self.regions.argmax(dim=2).gather(1, moments)


class GlanceFuser(TrainedFuser[Padded]):
    """Attention to the regions of each moment, asked for by its sound, then to the moments. The
    scores are a linear map of the attended. The task teaches both, and if it gives classes, so does
    the confidence in a clip's true class that `Teacher` has in each region.

    Args:
        inputs: modality → the width of a token.
        outputs, mix, drop, training: as in `TrainedFuser`.
        seen: the modality whose tokens of a moment are regions of it. The tokens of every other
            modality are heard with each moment, and ask for a region.
        moments: of a clip. A modality has a multiple of as many tokens, in order of time; or one,
            which belongs to the whole clip.
        width: of all tokens inside.
        layers, heads: of the transformer that compares moments; `heads` divides `width`.
        dropout: of tokens, and in the transformer.
        guide: weight of the teacher's loss, 0 for none: the squared error of attention's scores as
            predictions of the confidences, standardised by clip; that of a moment is the largest
            of its regions.

    Raises:
        ConfigError: an option is out of range.

    Example:
        fuser = GlanceFuser.fit(train, validation, task, FitContext(), moments=30).fuser
        fuser.glance(latents, present).best(4)  # which 4 moments, and where in each
    """

    uses = ("tokens",)
    settings = replace(TrainedFuser.settings, epochs=40, patience=20, lr=4e-3)

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: int,
        *,
        seen: str = "image",
        moments: int = 30,
        width: int = 64,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.3,
        guide: float = 5.0,
        mix: float = 0.0,
        drop: float | None = None,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(inputs, outputs, mix, drop, training)
        if moments < 1 or layers < 1 or heads < 1 or width % heads or guide < 0:
            raise ConfigError(
                f"The fuser 'glance' has moments={moments}, layers={layers}, heads={heads}, "
                f"width={width}, guide={guide}.",
                "There is one moment and one layer or more, heads divides width, and guide is 0 or "
                "more.",
            )
        self.seen, self.moments, self.guide = seen, moments, guide
        self.teacher: Teacher | None = None
        self.standards = Modules(Standard(d) for d in inputs.values())
        self.maps = Modules(nn.Linear(d, width) for d in inputs.values())
        self.types = nn.Parameter(0.02 * torch.randn(len(inputs), width))
        self.times = nn.Parameter(0.02 * torch.randn(moments, width))
        self.query, self.ask = nn.Parameter(0.02 * torch.randn(width)), nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.layers = Modules(Layer(width, heads, dropout) for _ in range(layers))
        self.salient = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.sharp = nn.Parameter(torch.full((2,), _SHARP))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def prepare(self, train: Labelled) -> None:
        samples = {m: sample(train, m) for m in self.inputs}
        for (modality, rows), standard in zip(samples.items(), self.standards, strict=True):
            standard.learn(rows)
            samples[modality] = standard(rows)
        self.teacher = None
        if self.guide and train.targets.values.dtype == torch.int64:
            self.teacher = Teacher(samples, self.outputs)
            self.teacher.learn(self._learnt(self.teacher, train))

    def raw(self, latents: Mapping[str, Padded], present: Tensor) -> Tensor:
        return self._raw(self._looked(self._parts(latents, present))[0])

    def trained_on(
        self, latents: Mapping[str, Padded], present: Tensor, targets: Targets
    ) -> tuple[Tensor, Tensor | None]:
        parts = self._parts(latents, present)
        found, salient, scores = self._looked(parts)
        if self.teacher is None:
            return self._raw(found), None
        windows, valid = self._windows(parts)
        sure = self.teacher.confidence(self.teacher.features(windows, valid), targets.values)
        valid = valid.unflatten(1, (self.moments, -1))
        there, sure = valid.any(dim=2), sure.unflatten(1, valid.shape[1:])
        gaps = [_centred(salient, there) - _standard(_most(sure, valid), there)]
        used = [there]
        if scores.shape[2]:
            by_moment = valid.flatten(0, 1)
            wanted = _centred(_standard(sure, valid).flatten(0, 1), by_moment)
            gaps.append(_centred(scores.flatten(0, 1), by_moment) - wanted)
            used.append(by_moment)
        missed = [gap[own].square().mean() for gap, own in zip(gaps, used, strict=True)]
        return self._raw(found), self.guide * torch.stack(missed).sum()

    def glance(self, latents: Mapping[str, Padded], present: Tensor) -> Glance:
        """Which moments and regions count.

        Args:
            latents, present: as in `forward`.
        """
        return self._looked(self._parts(latents, present))[0]

    def _raw(self, found: Glance) -> Tensor:
        attended = (found.saliency[..., None] * found.vectors).sum(dim=1)
        return self.head(self.dropout(self.norm(attended)))

    def _looked(self, parts: Parts) -> tuple[Glance, Tensor, Tensor]:
        """The cheap pass, with its scores of moments `[n, M]` and regions `[n, M, R]`."""
        mask = parts[0][1]
        there = mask.new_zeros(mask.shape[:2])
        heard = self.query.new_zeros(*there.shape, len(self.query))
        regions, shown = heard[:, :, None, :][:, :, :0], there[:, :, None][:, :, :0]
        for k, modality in enumerate(self.inputs):
            tokens, mask = parts[k]
            tokens = self.dropout(self.maps[k](tokens)) + self.types[k]
            there = there | mask.any(dim=2)
            if modality == self.seen:
                regions, shown = tokens, mask
            else:
                heard = heard + _mean(tokens, mask)
        asked = self.query + self.ask(heard)
        scores = (self.key(regions) @ asked[..., None])[..., 0] / len(self.query) ** 0.5
        sharp = self.sharp.exp()
        shares = (sharp[0] * scores).masked_fill(~shown, _NEVER).softmax(dim=2) * shown
        vectors = heard + (shares[..., None] * regions).sum(dim=2)
        hidden = vectors + self.times
        for layer in self.layers:
            hidden = layer(hidden, there)
        salient = self.salient(hidden)[..., 0]
        saliency = (sharp[1] * salient).masked_fill(~there, _NEVER).softmax(dim=1)
        return Glance(saliency, shares, vectors), salient, scores

    def _learnt(self, teacher: Teacher, train: Labelled) -> Iterator[tuple[Tensor, Tensor]]:
        """The features of windows and the classes of clips, for the teacher."""
        for rows in train.targets.rows.nonzero()[:, 0].split(CHUNK):
            own = train.select(rows)
            latents = own.pairs.batch(torch.arange(len(own))).latents
            tokens = {m: one for m, one in latents.items() if isinstance(one, Padded)}
            parts = self._parts(tokens, own.present)
            yield teacher.features(*self._windows(parts)), own.targets.values

    def _windows(self, parts: Parts) -> tuple[dict[str, Tensor], Tensor]:
        """modality → the tokens of each window and the sound of its moment `[n, M · R, d]`; bool
        which windows are there. A moment that shows nothing has one. If nothing is seen, the
        tokens of another modality are the windows."""
        names = list(self.inputs)
        seen = max(
            range(len(parts)), key=lambda k: (parts[k][1].shape[2] > 0, names[k] == self.seen)
        )
        valid = parts[seen][1].clone()
        there = torch.stack([mask.any(dim=2) for _, mask in parts]).any(dim=0)
        valid[..., 0] |= there & ~valid.any(dim=2)
        found = {}
        for k, modality in enumerate(self.inputs):
            tokens, mask = parts[k]
            if k == seen:
                tokens = tokens * mask[..., None]
            else:
                tokens = _mean(tokens, mask)[:, :, None].expand(-1, -1, valid.shape[2], -1)
            found[modality] = tokens.flatten(1, 2)
        return found, valid.flatten(1)

    def _parts(self, latents: Mapping[str, Padded], present: Tensor) -> Parts:
        return [self._by_moment(k, latents[m], present) for k, m in enumerate(self.inputs)]

    def _by_moment(self, k: int, given: Padded, present: Tensor) -> tuple[Tensor, Tensor]:
        """The standardised tokens of the k-th modality `[n, M, R, d]`, and bool which of them are
        there."""
        mask = given.mask & present[:, k, None]
        counts = mask.sum(dim=1)
        most = int(counts.max()) if len(counts) else 0
        tokens = self.standards[k](Padded(given.values, mask).filled())
        if most <= 1:
            tokens, mask = tokens[:, None, :1], mask[:, None, :1]
            return tokens.expand(-1, self.moments, -1, -1), mask.expand(-1, self.moments, -1)
        if self.moments > 1 and (most % self.moments or ((counts != most) & (counts > 0)).any()):
            raise ConfigError(
                f"An item of {list(self.inputs)[k]} has {most} tokens, which aren't those of "
                f"{self.moments} moments.",
                "Set the fuser's option moments to the number of moments of a clip.",
            )
        wanted = Padded(tokens[:, :most], mask[:, :most])
        return (
            wanted.values.unflatten(1, (self.moments, -1)),
            wanted.mask.unflatten(1, (self.moments, -1)),
        )


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """`[n, M, d]`: the mean of a moment's tokens `[n, M, R, d]`, 0 if there is none."""
    return (tokens * mask[..., None]).sum(dim=2) / mask.sum(dim=2, keepdim=True).clamp(min=1)


def _most(values: Tensor, valid: Tensor) -> Tensor:
    """The largest valid value of each moment `[n, M]`, 0 if there is none."""
    return values.masked_fill(~valid, _NEVER).amax(dim=2) * valid.any(dim=2)


def _centred(values: Tensor, valid: Tensor) -> Tensor:
    """Values `[n, …]` less the mean of their row's valid ones; 0 if they aren't valid."""
    dims = tuple(range(1, values.ndim))
    count = valid.sum(dim=dims, keepdim=True).clamp(min=1)
    return (values - (values * valid).sum(dim=dims, keepdim=True) / count) * valid


def _standard(values: Tensor, valid: Tensor) -> Tensor:
    """Values `[n, …]` less the mean of their row's valid ones, over the spread of these."""
    dims, found = tuple(range(1, values.ndim)), _centred(values, valid)
    count = valid.sum(dim=dims, keepdim=True).clamp(min=1)
    spread = (found.square().sum(dim=dims, keepdim=True) / count).sqrt()
    return found / spread.clamp_min(1e-9)
