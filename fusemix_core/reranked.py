"""`RerankModel`: the artefact of `fusemix rerank`. Encoders of tokens and a network, beside a fused
model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from fusemix_core.config import Backend, Part
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Padded, Reranker, as_tokens
from fusemix_core.reranking.scoring import scores_of
from fusemix_core.saved.card import CardText, model_card, saved_by
from fusemix_core.saved.components import Built
from fusemix_core.saved.identity import identity
from fusemix_core.saved.model import SavedModel
from fusemix_core.saved.schema import EncoderInfo, SavedConfig

PART = "reranker"
RECORD = "rerank"
"""Where the metrics of the saved model have what ranking needs: `top_k`, `weights`, `fused`."""


class RerankModel(SavedModel):
    """Ranks the first results of a fused model anew.

    The new score of a candidate is that of the fused model plus a weight times that of the network,
    which looks at the tokens of both items. A weight of 0 leaves the order as it is.

    Args:
        encoders: modality → what its tokens come from, for two modalities.
        network: takes these tokens.
        top_k: how many results are ranked anew.
        weights: direction (`image->text`) → the weight of the network's score.
        fused: `identity` of the fused model that it belongs to.
        part: the registered name of the network, and its options. Without it, the name is that of
            the registered class and the options are its attribute `options`.
        more: as in `SavedModel`.

    Example:
        reranker = fusemix_core.load("runs/rerank/model")
        reranker.check(model)
        scores = model.similarity(asked, embeddings, "text", "image")[0]
        best = scores.topk(reranker.top_k)
        found = [paths[i] for i in best.indices]
        new = reranker.rescore("text", "a map", "image", found, best.values)
        print(found[new.argmax()])
    """

    kind = "reranker"
    made_by = "`fusemix rerank`"

    def __init__(
        self,
        encoders: Mapping[str, EncoderInfo],
        network: Reranker,
        *,
        top_k: int,
        weights: Mapping[str, float],
        fused: str,
        part: Part | None = None,
        **more: Any,
    ) -> None:
        widths = {m: info.dim for m, info in encoders.items()}
        if list(network.inputs.items()) != list(widths.items()) or len(widths) != 2:
            raise ConfigError(
                f"The network takes tokens of {network.inputs}; the encoders give {widths}."
            )
        self.network, self.top_k, self.fused = network, top_k, fused
        self.weights = {name: float(weight) for name, weight in weights.items()}
        record = {"top_k": top_k, "weights": self.weights, "fused": fused}
        more["metrics"] = {**(more.get("metrics") or {}), RECORD: record}
        super().__init__(encoders, {PART: Built(network, (network.inputs,), part)}, **more)

    @classmethod
    def from_parts(
        cls, encoders: Mapping[str, EncoderInfo], parts: Mapping[str, Built], **more: Any
    ) -> Self:
        """The model of a loaded network."""
        if set(parts) != {PART}:
            raise ArtefactError(f"A re-ranker has one network; this one has {', '.join(parts)}.")
        found = (more.get("metrics") or {}).get(RECORD)
        built = parts[PART]
        try:
            return cls(encoders, built.component, part=built.part, **_checked(found), **more)
        except ConfigError as error:
            raise ArtefactError(error.message) from error

    def check(self, model: SavedModel) -> None:
        """Raise `ArtefactError` unless a fused model is the one that this belongs to."""
        if not set(self.modalities) <= set(model.modalities) or (
            identity(model, self.modalities) != self.fused
        ):
            raise ArtefactError(
                f"The re-ranker {self.name} belongs to another model than {model.name}.",
                "Train one for this model: fusemix rerank RUN",
            )

    def weight(self, query: str, target: str) -> float:
        """The weight of the network's score in a direction; 0 for one that it was not fitted to."""
        return self.weights.get(f"{query}->{target}", 0.0)

    def tokens(
        self,
        modality: str,
        items: Iterable[Any],
        batch_size: int | None = None,
        *,
        backend: Backend = "auto",
    ) -> Padded:
        """The tokens of raw items; arguments and errors are those of `FusedModel.encode`."""
        return as_tokens(self.latents(modality, items, batch_size, backend=backend))

    @torch.no_grad()
    def rescore(
        self,
        query: str,
        item: Any,
        target: str,
        candidates: Iterable[Any] | Padded,
        scores: Tensor,
    ) -> Tensor:
        """The new scores of a query's candidates.

        Args:
            query: the modality of the query.
            item: the query, raw, or its tokens, `Padded` of one item.
            target: the modality of the candidates.
            candidates: raw items, or their tokens.
            scores: `[k]`, by the fused model.

        Returns:
            float64 CPU `[k]`; larger is better.

        Raises:
            DataError: an item can't be decoded.
            ArtefactError: an encoder is not the one of the fit.
        """
        found, weight = scores.detach().cpu().double(), self.weight(query, target)
        if not weight or not len(found):
            return found
        asked = item if isinstance(item, Padded) else self.tokens(query, [item])
        if not isinstance(candidates, Padded):
            candidates = self.tokens(target, candidates)
        row = torch.zeros(len(candidates), dtype=torch.long)
        pairs = {query: asked[row].to(self.device), target: candidates.to(self.device)}
        return found + weight * scores_of(self.network, pairs).cpu().double()

    def card(self, config: SavedConfig, name: str) -> str:
        """The model card."""
        names = " and ".join(config.encoders)
        summary = (
            f"Ranks the first {self.top_k} results of a search between {names} anew, by tokens of "
            f"both items: the network {config.parts[PART].name} on frozen encoders, "
            f"{saved_by(config)}. It belongs to one fused model, and refuses others."
        )
        first, second = config.encoders
        code = [f"model.rescore({second!r}, query, {first!r}, candidates, scores)"]
        limitations = ["It can only move up what the fused model has found."]
        return model_card(
            config, name, CardText(summary, "RerankModel", code, limitations=limitations)
        )


def _checked(found: Any) -> dict[str, Any]:
    """The checked record of a saved model. Raises `ArtefactError` if it is damaged."""
    fine = isinstance(found, Mapping) and set(found) == {"top_k", "weights", "fused"}
    fine = fine and type(found["top_k"]) is int and found["top_k"] > 0
    fine = fine and isinstance(found["fused"], str) and isinstance(found["weights"], Mapping)
    if not fine or not all(_is_weight(weight) for weight in found["weights"].values()):
        raise ArtefactError(
            "The saved re-ranker does not say how its score is mixed with that of the fused model."
        )
    return dict(found)


_LARGEST = 1e30
"""A weight is smaller."""


def _is_weight(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LARGEST
