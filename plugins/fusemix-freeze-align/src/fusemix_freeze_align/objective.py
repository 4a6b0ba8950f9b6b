"""The objective `token-infonce`: InfoNCE of what is pooled, and a loss on the tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from fusemix_core.errors import ConfigError
from fusemix_core.gathering import total
from fusemix_core.interfaces import Padded, Step
from fusemix_core.objectives.infonce import InfoNCE

_MASKED = -1e9
_IGNORED = -100
"""The target of padding."""


class TokenInfoNCE(InfoNCE):
    """InfoNCE + weight · `token_loss` / temperature of the tokens of the modality `language` with
    those of each other modality, the mean over these (SPARC's loss, as Freeze-Align has it).

    threshold: None is 1/P. The other options are those of InfoNCE. A row has part if it has both
    modalities; each process counts its own rows. Raises `ConfigError` for options out of range, and
    in use if the run has no modality `language` or no tokens are given.
    """

    uses = ("tokens",)

    def __init__(
        self,
        *,
        weight: float = 1.0,
        threshold: float | None = None,
        language: str = "text",
        temperature: float = 0.07,
        learnable: bool = True,
        mask_shared: bool = False,
    ) -> None:
        super().__init__(temperature=temperature, learnable=learnable, mask_shared=mask_shared)
        if weight < 0 or (threshold is not None and not 0 <= threshold <= 1):
            raise ConfigError(
                f"token-infonce can't have weight={weight}, threshold={threshold}.",
                "weight is 0 or more; threshold from 0 to 1, or none for 1 over the places.",
            )
        self.weight, self.threshold, self.language = weight, threshold, language
        self._logged: dict[str, Tensor] = {}

    def forward(self, step: Step) -> Tensor:
        loss, tokens = super().forward(step), step.own.tokens
        if self.language not in tokens:
            raise ConfigError(
                f"token-infonce has no tokens of the modality '{self.language}'.",
                "Name the modality whose tokens ask, such as --set objective.language=caption.",
            )
        column = {m: k for k, m in enumerate(step.own.embeddings)}
        words = tokens[self.language]
        found = [
            self._of_pair(
                places, words, step.own.rows_with(column[self.language], column[modality])
            )
            for modality, places in tokens.items()
            if modality != self.language
        ]
        of_tokens = torch.stack(found).mean()
        self._logged = {"token_loss": of_tokens.detach()}
        return loss + self.weight * of_tokens

    def _of_pair(self, places: Padded, words: Padded, rows: Tensor | None) -> Tensor:
        widths = [x.values.shape[2] for x in (places, words)]
        if widths[0] != widths[1]:
            raise ConfigError(
                f"Tokens of the {self.language} are {widths[1]} wide, and those they are compared "
                f"with {widths[0]}.",
                "A loss on tokens needs a projector of tokens: --set adapter.token=patch",
            )
        if rows is not None:
            places, words = places[rows], words[rows]
        summed, count = token_loss(places, words, self.temperature, self.threshold)
        return total(summed) / total(count).clamp(min=1)

    def log(self) -> dict[str, Tensor]:
        return {**super().log(), **self._logged}


def token_loss(
    places: Padded, words: Padded, temperature: Tensor | float, threshold: float | None = None
) -> tuple[Tensor, Tensor]:
    """(sum over words, number of words) of the token-level loss of items with places `[n, P, e]`
    and words `[n, T, e]`.

    A word's inner products with its item's places, brought to [0, 1] from the least to the largest
    and set to 0 below `threshold` (None: 1/P), weigh the places: their weighted mean is what the
    word tells of. Within an item each word must find its own mean among those of the other words,
    and each mean its word: half the sum of both cross-entropies of cosines over `temperature`.
    """
    (place, has_place), (word, is_word) = _trimmed(places), _trimmed(words)
    if not place.numel() or not word.numel():
        return (place.sum() + word.sum()) * 0, word.new_zeros(())
    is_word = is_word & has_place.any(dim=1, keepdim=True)
    grouped = normalize(_weights(place, word, has_place, threshold) @ place, dim=2)
    logits = grouped @ normalize(word, dim=2).transpose(1, 2) / temperature  # [n, T, T]
    both = [
        _own_place(x.masked_fill(~is_word[:, None], _MASKED), is_word)
        for x in (logits, logits.transpose(1, 2))
    ]
    return (both[0] + both[1]) / 2, is_word.sum().to(word.dtype)


def _weights(places: Tensor, words: Tensor, has_place: Tensor, threshold: float | None) -> Tensor:
    """`[n, T, P]`: each row sums to 1 over the item's places."""
    padding = ~has_place[:, None]
    similar = words @ places.transpose(1, 2)
    least = similar.masked_fill(padding, torch.inf).amin(dim=2, keepdim=True)
    span = similar.masked_fill(padding, -torch.inf).amax(dim=2, keepdim=True) - least
    flat = ~(span > 0)  # all places alike, or none: equal weights
    scaled = torch.where(flat, 1, (similar - least) / torch.where(flat, 1, span))
    limit = 1 / has_place.sum(dim=1)[:, None, None] if threshold is None else threshold
    kept = scaled.masked_fill(padding | (scaled < limit), 0)
    return kept / kept.sum(dim=2, keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)


def _own_place(logits: Tensor, is_word: Tensor) -> Tensor:
    """The sum over words of the cross-entropies against the diagonal."""
    target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    target = target.masked_fill(~is_word, _IGNORED)
    return cross_entropy(
        logits.flatten(0, 1), target.flatten(), reduction="sum", ignore_index=_IGNORED
    )


def _trimmed(x: Padded) -> tuple[Tensor, Tensor]:
    """Values, zero in padding, and mask; on the CPU without the positions that are padding in all
    items. A GPU would have to be asked for how many those are, and computes them in no time."""
    if x.device.type != "cpu":
        return x.filled(), x.mask
    used = x.mask.any(dim=0).nonzero()
    own = slice(0, int(used.max()) + 1 if len(used) else 0)
    return x.filled()[:, own], x.mask[:, own]
