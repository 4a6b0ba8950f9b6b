"""FusedModel: adapters, a scorer and the names of the encoders; what a fit leaves to use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.adapters.rows import ROWS, VALUES, width_of
from fusemix_core.codes import CodeType
from fusemix_core.config import Backend, Part
from fusemix_core.errors import ArtefactError, ConfigError, ContractError, DataError
from fusemix_core.interfaces import Adapter, Correction, Padded, Scorer, input_of, takes_tokens
from fusemix_core.latents.sharing import settle
from fusemix_core.registry import Registry, registry
from fusemix_core.saved.card import fused_text, model_card
from fusemix_core.saved.components import Built, as_artefact_error, check_scorer
from fusemix_core.saved.corrections import (
    check_corrections,
    corrections_in,
    with_corrections,
    without_corrections,
)
from fusemix_core.saved.encoders import Source
from fusemix_core.saved.model import SavedModel
from fusemix_core.saved.schema import EncoderInfo, SavedConfig, SavedPart
from fusemix_core.space import Form, Space

__all__ = ["EncoderInfo", "FusedModel"]


class FusedModel(SavedModel):
    """Adapters of two modalities or more into one space, a scorer, and the encoders by name.

    Args:
        adapters: modality → fitted adapter.
        encoders: modality → what its latents came from, in the order of the modalities.
        scorer: turns embeddings into scores.
        adapter_parts, scorer_part: the parts that they were built from. Without them, the name is
            that of the registered class and the options are its attribute `options`.
        sources: modality → what to load in place of the saved name: a registry name, an
            `EncoderSpec`, or a loaded `Encoder`.
        recipe, objective, data, metrics: facts to record, shown in the model card.

    Example:
        model = FusedModel.from_pretrained("runs/first/model")
        images = model.encode("image", ["a.jpg", "b.jpg"])
        scores = model.similarity(model.encode("text", ["a map"]), images, "text", "image")
    """

    kind = "fused"
    made_by = "`fusemix align`"

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        encoders: Mapping[str, EncoderInfo],
        scorer: Scorer,
        *,
        adapter_parts: Part | Mapping[str, Part | None] | None = None,
        scorer_part: Part | None = None,
        sources: Mapping[str, Source] | None = None,
        recipe: Mapping[str, Any] | None = None,
        objective: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        device: str | torch.device = "auto",
        registry: Registry = registry,
        name: str = "path/to/model",
    ) -> None:
        if set(adapters) != set(encoders) or len(encoders) < 2:
            raise ConfigError(
                f"Adapters ({', '.join(adapters)}) and encoders ({', '.join(encoders)}) must be of "
                "the same modalities, two or more."
            )
        given = adapter_parts if isinstance(adapter_parts, Mapping) else {}
        default = None if isinstance(adapter_parts, Mapping) else adapter_parts
        self.adapters = {m: adapters[m] for m in encoders}
        self.scorer = scorer
        self.dim = _width(self.adapters, encoders)
        parts = {
            f"adapter.{m}": Built(adapter, (encoders[m].dim, self.dim), given.get(m, default))
            for m, adapter in self.adapters.items()
        }
        super().__init__(
            encoders,
            {**parts, "scorer": Built(scorer, (), scorer_part)},
            sources=sources,
            recipe=recipe,
            objective=objective,
            data=data,
            metrics=metrics,
            device=device,
            registry=registry,
            name=name,
        )
        check_scorer(scorer, self.modalities, self.dim)

    @classmethod
    def from_parts(
        cls, encoders: Mapping[str, EncoderInfo], parts: Mapping[str, Built], **more: Any
    ) -> Self:
        """The model of loaded parts: an adapter of each modality, and a scorer."""
        wanted, corrections = {*(f"adapter.{m}" for m in encoders), "scorer"}, corrections_in(parts)
        parts = without_corrections(parts)
        if set(parts) != wanted or len(encoders) < 2:
            raise ArtefactError(
                f"A fused model has two modalities or more, an adapter of each, and a scorer; this "
                f"one has the encoders {', '.join(encoders)} and the parts {', '.join(parts)}."
            )
        adapters = {m: parts[f"adapter.{m}"] for m in encoders}
        for m, built in adapters.items():
            if built.arguments[:1] != (encoders[m].dim,):
                raise ArtefactError(
                    f"The adapter of {m} has the arguments {list(built.arguments)}, and the "
                    f"encoder's latents the width {encoders[m].dim}."
                )
        components = {m: built.component for m, built in adapters.items()}
        with as_artefact_error("The saved adapters do not fit together"):
            width = _width(components, encoders)
            if any(built.arguments[1:] != (width,) for built in adapters.values()):
                raise ValueError(f"they give embeddings of width {width}")
        model = cls(
            components,
            encoders,
            parts["scorer"].component,
            adapter_parts={m: built.part for m, built in adapters.items()},
            scorer_part=parts["scorer"].part,
            **more,
        )
        model.corrections = corrections
        return model

    @property
    def corrections(self) -> dict[str, Correction]:
        """name → what brings embeddings to where the latents of a fixed modality are, for
        generators; `auto` names the one for each modality. Set it to replace them.

        Raises:
            ArtefactError: when set, if one can't correct what it has learnt of.
        """
        return corrections_in(self.parts)

    @corrections.setter
    def corrections(self, corrections: Mapping[str, Correction]) -> None:
        check_corrections(corrections, self.modalities, self.dim)
        self.parts = with_corrections(self.parts, corrections)

    @property
    def scorer_part(self) -> Part:
        """The registered name of the scorer, and its options."""
        saved = self.part("scorer")
        return Part(saved.name, saved.options)

    @property
    def scorer_name(self) -> str:
        """The registered name of the scorer."""
        return self.scorer_part.name

    def adapter_part(self, modality: str) -> SavedPart:
        """The adapter of a modality by its registered name and options."""
        self._check_known(modality)
        return self.part(f"adapter.{modality}")

    def card(self, config: SavedConfig, name: str) -> str:
        """The model card."""
        return model_card(config, name, fused_text(config))

    def extended(
        self,
        adapters: Mapping[str, Adapter],
        encoders: Mapping[str, EncoderInfo],
        scorer: Scorer,
        *,
        sources: Mapping[str, Source] | None = None,
        data: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> Self:
        """A new model of these modalities beside this one's, whose adapters and recipe it keeps.

        scorer: this model's, which has taken in the new modalities (`Scorer.extend`). `data` and
        `metrics` are added to what is recorded. `fusemix_core.extend` fits what this needs.
        """
        if both := sorted(set(adapters) & set(self.adapters)):
            raise ConfigError(f"The model has the modality '{both[0]}' already.")
        own = {m: self.parts[f"adapter.{m}"].part for m in self.adapters}
        model = type(self)(
            {**self.adapters, **adapters},
            {**self.encoders, **encoders},
            scorer,
            adapter_parts={m: part for m, part in own.items() if part is not None},
            scorer_part=self.parts["scorer"].part,
            sources={**self._sources, **(sources or {})},
            recipe=self.recipe,
            objective=self.objective,
            data={**self.data, **(data or {})},
            metrics={**self.metrics, **(metrics or {})},
            device=self.device,
            registry=self.registry,
            name=self.name,
        )
        model.seen, model.rotation = dict(self.seen), self.rotation
        model.corrections = self.corrections
        return model

    # -- embeddings ------------------------------------------------------------------------------

    def encode(
        self,
        modality: str,
        items: Iterable[Any],
        batch_size: int | None = None,
        *,
        backend: Backend = "auto",
        form: Form | None = None,
        against: Sequence[str] | None = None,
        dim: int | None = None,
        dtype: CodeType = "float32",
    ) -> Tensor:
        """Unit-norm embeddings of raw items.

        Items take the way of extraction: batches under a budget, halved when memory runs out, by
        OpenVINO if that is faster and gives the same latents. Threads may share a model.

        Args:
            modality: what the items are.
            items: a list, or any iterable: texts; paths, bytes, PIL images; paths, bytes, `Audio`,
                (samples, rate) pairs. One item must be in a list, too: a lone str is a TypeError,
                not a list of characters.
            batch_size: items at once. None: as many as suit the medium.
            backend: the runtime on a CPU, as for extraction: `auto`, `eager` or `openvino`.
            form, against, dim, dtype: how the vectors are to be stored, as in `convert`.

        Returns:
            float32 `[n, dim]` on the CPU, row i of item i; or what `convert` gives.

        Raises:
            ArtefactError: the encoder, loaded on first use, is not the one of the fit.
            DataError: an item can't be decoded.
            ContractError: the encoder or the adapter misbehaves.

        Example:
            rows = model.encode("text", ["a red bicycle", "a map"])
        """
        items = self._as_items(modality, items)
        out = torch.zeros(len(items), self.dim)
        for index, latents in self._encoded(modality, items, batch_size, backend):
            if not self._fits(modality, latents):
                info = self.encoders[modality]
                raise ContractError(
                    f"Encoder '{info.name}'",
                    f"{self._form(modality, len(latents))} of the view '{info.view}'",
                    f"{_shape(latents)}",
                )
            out[index] = self._unit(modality, self._adapted(modality, latents))
        return self.convert(out, modality, form=form, against=against, dim=dim, dtype=dtype)

    @property
    def space(self) -> Space:
        """The shared space: its scorer, and the order of its dimensions."""
        return Space(self.dim, self.modalities, self.scorer, self.rotation)

    def convert(
        self,
        rows: Tensor | ArrayLike,
        modality: str,
        *,
        form: Form | None = None,
        against: Sequence[str] | None = None,
        dim: int | None = None,
        dtype: CodeType = "float32",
    ) -> Tensor:
        """Embeddings as another program stores and compares them.

        Args:
            rows, modality: unit-norm embeddings `[n, dim]` of a modality.
            form: `query` or `gallery`: vectors whose inner product ranks as the model's scorer
                does, for any vector index. None: the embeddings, for cosine.
            against: with a form, the modalities of queries that the index serves; by default all
                of the model. Queries and gallery take the same.
            dim: so many leading dimensions, brought to unit norm again. They are compared with
                vectors of as many.
            dtype: `float32`, `float16`, `int8` or `binary` (see `fusemix_core.codes`).

        Returns:
            `[n, d]`, with a column more for each modality of `against` if the scorer needs it;
            of `binary`, uint8 `[n, ceil(d / 8)]`.

        Raises:
            ConfigError: the model or its scorer can't do it.

        Example:
            stored = model.encode("image", paths, form="gallery", dtype="float16")
            asked = model.encode("text", ["a map"], form="query")
            best = (asked @ stored.float().T).topk(10)
        """
        self._check_known(modality)
        rows = self.space.embeddings(rows, modality)
        return self.space.convert(rows, modality, form=form, against=against, dim=dim, dtype=dtype)

    def embed(self, modality: str, latents: Tensor | Padded) -> Tensor:
        """Unit-norm embeddings of latents.

        Args:
            modality: of which they are.
            latents: `[n, encoder's dim]`. Those of a view with more axes may have them, as in
                `[n, L, d]`. An adapter of tokens takes any number of them: `[n, T, d]` if all
                items have as many, else `Padded`.

        Returns:
            float32 `[n, dim]` on the CPU.
        """
        return self._unit(modality, self.adapt(modality, latents))

    def adapt(self, modality: str, latents: Tensor | Padded) -> Tensor:
        """Embeddings as the adapter gives them, without normalisation; otherwise as `embed`."""
        self._check_known(modality)
        if not self._fits(modality, latents):
            raise ConfigError(
                f"Latents of {modality} must be {self._form(modality, 'n')}; these are "
                f"{_shape(latents)}.",
                f"They are of the view '{self.encoders[modality].view}' of the encoder "
                f"'{self.encoders[modality].name}'.",
            )
        if not _finite(latents):
            raise DataError(f"Latents of {modality} contain NaN or infinity.")
        return self._adapted(modality, latents)

    @torch.no_grad()
    def _adapted(self, modality: str, latents: Tensor | Padded) -> Tensor:
        """float32 `[n, dim]` on the CPU, of finite latents that fit."""
        settle()
        adapter, parts = self.adapters[modality], [torch.zeros(0, self.dim)]
        size = max(1, min(ROWS, VALUES // math.prod(_shape(latents)[1:])))
        for start in range(0, len(latents), size):
            taken = input_of(adapter, latents[start : start + size])
            out = adapter(taken.to(self.device, torch.float32))
            if out.shape != (len(taken), self.dim):
                wanted, got = f"[{len(taken)}, {self.dim}]", f"{list(out.shape)}"
                raise ContractError(f"The {modality} adapter", wanted, got)
            parts.append(out.float().cpu())
        return torch.cat(parts)

    def _unit(self, modality: str, rows: Tensor) -> Tensor:
        """The rows at unit norm."""
        embeddings = normalize(rows, dim=1)
        if not ((embeddings.norm(dim=1) - 1).abs() < 1e-3).all():  # so that NaN fails, too
            raise ContractError(
                f"The {modality} adapter", "finite embeddings, none zero", "NaN, infinity or zero"
            )
        return embeddings

    def _fits(self, modality: str, latents: Tensor | Padded) -> bool:
        """Whether the adapter takes latents of that shape."""
        width, shape = self.encoders[modality].dim, _shape(latents)
        if takes_tokens(self.adapters[modality]):
            # The second: of models whose adapter was given all tokens as one row when it was saved.
            width_fits = shape[-1] == width or math.prod(shape[1:]) == width
            return len(shape) > 1 and width_fits and 0 not in shape[1:]
        if isinstance(latents, Padded) or len(shape) < 2:
            return False
        return math.prod(shape[1:]) == width

    def _form(self, modality: str, n: int | str) -> str:
        """The shape of latents that the adapter takes, to be shown."""
        tokens = "T, " if takes_tokens(self.adapters[modality]) else ""
        return f"[{n}, {tokens}{self.encoders[modality].dim}]"

    # -- scores ----------------------------------------------------------------------------------

    def similarity(
        self,
        queries: Tensor | ArrayLike,
        gallery: Tensor | ArrayLike,
        query: str | None = None,
        target: str | None = None,
    ) -> Tensor:
        """Scores `[n, m]` of embeddings `[n, dim]` of modality `query` against `[m, dim]` of
        `target`; larger is closer.

        Embeddings may also be numpy arrays or lists of rows. A model of two modalities needs one
        of the names: the other then is the other modality. It can't do without both, as a
        hubness-corrected score differs by direction.
        """
        return self.prepare(gallery, query, target)(queries)

    def prepare(
        self,
        gallery: Tensor | ArrayLike,
        query: str | None = None,
        target: str | None = None,
    ) -> Callable[[Tensor | ArrayLike], Tensor]:
        """`similarity` against a fixed gallery, as a function of the queries: what depends only on
        the gallery is computed once."""
        query, target = self.space.direction(query, target)
        gallery = self.space.embeddings(gallery, target)
        settle()
        score = self.scorer.prepare(gallery, query, target)

        def checked(queries: Tensor | ArrayLike) -> Tensor:
            settle()
            return score(self.space.embeddings(queries, query))

        return checked


def _width(adapters: Mapping[str, Adapter], encoders: Mapping[str, EncoderInfo]) -> int:
    """The width of the shared space, on which all adapters must agree."""
    widths = {m: width_of(adapter.eval(), encoders[m].dim) for m, adapter in adapters.items()}
    if len(set(widths.values())) > 1:
        raise ContractError("The adapters", "embeddings [n, d] of one width d", f"{widths}")
    return next(iter(widths.values()))


def _shape(latents: Tensor | Padded) -> list[int]:
    return list(latents.values.shape if isinstance(latents, Padded) else latents.shape)


def _finite(latents: Tensor | Padded) -> bool:
    values = latents.filled() if isinstance(latents, Padded) else latents
    return bool(values.isfinite().all())
