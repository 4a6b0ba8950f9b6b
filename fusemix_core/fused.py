"""FusedModel: adapters, a scorer and the names of the encoders; what a fit leaves to use."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.config import Part
from fusemix_core.devices import resolve_device
from fusemix_core.digests import file_sha256
from fusemix_core.errors import (
    ArtefactError,
    ConfigError,
    ContractError,
    DataError,
    UnknownNameError,
)
from fusemix_core.interfaces import Adapter, Padded, Scorer
from fusemix_core.latents.returned import kind_of
from fusemix_core.registry import Registry, registry
from fusemix_core.saved import folder as files
from fusemix_core.saved.card import model_card
from fusemix_core.saved.components import (
    check_rebuilt,
    check_scorer,
    load_components,
    part_of,
    tensors_of,
)
from fusemix_core.saved.encoders import LazyEncoder, Source
from fusemix_core.saved.schema import (
    FORMAT,
    EncoderInfo,
    SavedConfig,
    SavedModality,
    SavedPart,
    SavedScorer,
    check_modality,
    describe,
    plain,
    version,
)

__all__ = ["EncoderInfo", "FusedModel"]

_BATCH = 32
_ROWS = 4096
"""Latents that an adapter gets at a time."""


class FusedModel:
    """Adapters of two modalities or more into one space, a scorer, and the encoders by name.

    adapters: modality → fitted adapter; encoders: modality → what its latents came from, in the
    order of the modalities. `sources` gives what to load for a modality in place of the saved name:
    a registry name, an `EncoderSpec`, or a loaded `Encoder`. `adapter_parts` and `scorer_part` are
    the parts they were built from; without them, the name is that of the registered class and the
    options are its attribute `options`. `recipe`, `objective` (its temperature), `data` and
    `metrics` are recorded, and shown in the model card.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        encoders: Mapping[str, EncoderInfo],
        scorer: Scorer,
        *,
        adapter_parts: Part | Mapping[str, Part] | None = None,
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
        for modality in encoders:
            check_modality(modality)
        self.name = name
        self.device = resolve_device(device)
        self.registry = registry
        self.encoders = dict(encoders)
        self.adapters = {m: adapters[m].to(self.device).eval() for m in encoders}
        self.scorer = scorer
        self.recipe = plain(recipe or {}, "recipe")
        self.objective = plain(objective or {}, "objective")
        self.data = plain(data or {}, "data")
        self.metrics = plain(metrics or {}, "metrics")
        self.dim = self._find_dim()
        check_scorer(scorer, self.modalities, self.dim)
        self._scorer_part = scorer_part
        self._adapter_parts = (
            adapter_parts
            if isinstance(adapter_parts, Mapping)
            else dict.fromkeys(encoders, adapter_parts)
        )
        self._sources = dict(sources or {})
        self._encoders = self._lazy_encoders()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities, in the order of the fit."""
        return tuple(self.encoders)

    @property
    def scorer_part(self) -> Part:
        """The registered name of the scorer, and its options."""
        saved = part_of("scorer", self.scorer, self._scorer_part, self.registry)
        return Part(saved.name, saved.options)

    @property
    def scorer_name(self) -> str:
        """The registered name of the scorer."""
        return self.scorer_part.name

    def adapter_part(self, modality: str) -> SavedPart:
        """The adapter of a modality by its registered name and options."""
        self._check_known(modality)
        given = self._adapter_parts.get(modality)
        return part_of("adapter", self.adapters[modality], given, self.registry)

    def encoder(self, modality: str) -> LazyEncoder:
        """The encoder of a modality, which `encode` loads on first use: its `spec`, its `load`."""
        self._check_known(modality)
        return self._encoders[modality]

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
        return type(self)(
            {**self.adapters, **adapters},
            {**self.encoders, **encoders},
            scorer,
            adapter_parts=self._adapter_parts,
            scorer_part=self._scorer_part,
            sources={**self._sources, **(sources or {})},
            recipe=self.recipe,
            objective=self.objective,
            data={**self.data, **(data or {})},
            metrics={**self.metrics, **(metrics or {})},
            device=self.device,
            registry=self.registry,
            name=self.name,
        )

    def _find_dim(self) -> int:
        """The width of the shared space, as all adapters must agree on it."""
        widths = {}
        for modality, adapter in self.adapters.items():
            with torch.no_grad():
                out = adapter(torch.zeros(1, self.encoders[modality].dim, device=self.device))
            widths[modality] = tuple(out.shape)
        if len(set(widths.values())) > 1 or len(next(iter(widths.values()))) != 2:
            raise ContractError("The adapters", "embeddings [n, d] of one width d", f"{widths}")
        return next(iter(widths.values()))[1]

    def _lazy_encoders(self) -> dict[str, LazyEncoder]:
        for modality in self._sources:
            self._check_known(modality)
        return {
            m: LazyEncoder(info, self._sources.get(m), self.device, self.registry, self.name)
            for m, info in self.encoders.items()
        }

    def _check_known(self, modality: str) -> None:
        if modality not in self.encoders:
            raise UnknownNameError.of("modality of this model", str(modality), self.modalities)

    # -- embeddings ------------------------------------------------------------------------------

    def encode(self, modality: str, items: Iterable[Any], batch_size: int | None = None) -> Tensor:
        """Unit-norm embeddings of raw items: float32 `[n, dim]` on the CPU, row i of item i.

        items: a list (or any iterable) of what the modality is: texts; paths, bytes, PIL images;
        paths, bytes, `Audio`, (samples, rate) pairs. One item must be in a list, too: a lone str
        is a TypeError, not a list of characters. An empty list gives `[0, dim]`.

        Loads the modality's encoder on first use: raises `ArtefactError` if that is not the one of
        the fit. Raises `DataError` for an item that can't be decoded, `ContractError` for an
        encoder or an adapter that misbehaves.
        """
        self._check_known(modality)
        items = _as_list(modality, items)
        size = _BATCH if batch_size is None else batch_size
        if size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be 1 or more.")
        parts = [torch.zeros(0, self.dim)]
        for start in range(0, len(items), size):
            latents = self._latents(modality, items[start : start + size], start)
            parts.append(self._embed(modality, latents))
        return torch.cat(parts)

    def embed(self, modality: str, latents: Tensor | Padded) -> Tensor:
        """Unit-norm embeddings, float32 `[n, dim]` on the CPU, of latents `[n, encoder's dim]`.

        Those of a view with more axes may have them, as in `[n, L, d]`. An adapter that takes
        tokens has those of any number, `[n, T, d]`, with zeros for padding or as `Padded`.
        """
        self._check_known(modality)
        rows = latents.rows() if isinstance(latents, Padded) else latents
        rows = rows.flatten(1) if rows.dim() > 2 else rows
        if not self._fits(modality, rows):
            given = latents.values if isinstance(latents, Padded) else latents
            raise ConfigError(
                f"Latents of {modality} must be {self._form(modality, 'n')}; these are "
                f"{list(given.shape)}.",
                f"They are of the view '{self.encoders[modality].view}' of the encoder "
                f"'{self.encoders[modality].name}'.",
            )
        if not rows.isfinite().all():
            raise DataError(f"Latents of {modality} hold NaN or infinity.")
        parts = [self._embed(modality, part) for part in rows.split(_ROWS) if len(part)]
        return torch.cat([torch.zeros(0, self.dim), *parts])

    @torch.no_grad()
    def _latents(self, modality: str, items: list[Any], first: int) -> Tensor:
        """Latents `[len(items), d]` of one batch, whose first item is number `first`; a view of
        more axes as the fit had it, one row an item; tokens up to the batch's longest item."""
        from fusemix_core.data.media import decode

        encoder, info = self._encoders[modality].load(), self.encoders[modality]
        decoded = []
        for i, item in enumerate(items):
            try:
                decoded.append(decode(item, info.takes, encoder.spec.sample_rate))
            except DataError as error:
                raise DataError(
                    f"{modality} item {first + i} can't be encoded: {error.message}", error.hint
                ) from error
        latents = encoder.encode(encoder.collate(decoded), info.view)
        component, wanted = f"Encoder '{info.name}'", self._form(modality, len(items))
        if isinstance(latents, Padded) and self.adapters[modality].takes_tokens:
            latents = latents.rows()
        if not isinstance(latents, Tensor):
            raise ContractError(component, wanted, f"a {type(latents).__name__}")
        rows = latents if kind_of(info.view) == "pooled" else latents.flatten(1)
        if len(rows) != len(items) or not self._fits(modality, rows):
            shape = f"{list(latents.shape)}"
            raise ContractError(component, f"{wanted} of the view '{info.view}'", shape)
        if not rows.isfinite().all():
            raise ContractError(component, "finite latents", "NaN or infinity")
        return rows

    def _fits(self, modality: str, rows: Tensor) -> bool:
        """Whether the adapter takes rows of that shape."""
        width = self.encoders[modality].dim
        if rows.dim() != 2:
            return False
        if self.adapters[modality].takes_tokens:
            return rows.shape[1] > 0 and rows.shape[1] % width == 0
        return rows.shape[1] == width

    def _form(self, modality: str, n: int | str) -> str:
        """The shape of latents that the adapter takes, to be shown."""
        tokens = "T, " if self.adapters[modality].takes_tokens else ""
        return f"[{n}, {tokens}{self.encoders[modality].dim}]"

    @torch.no_grad()
    def _embed(self, modality: str, latents: Tensor) -> Tensor:
        """Unit-norm float32 `[n, dim]` on the CPU of one batch of latents, n at least 1."""
        adapter = self.adapters[modality]
        out = adapter(latents.to(self.device, torch.float32))
        if out.shape != (len(latents), self.dim):
            wanted, got = f"[{len(latents)}, {self.dim}]", f"{list(out.shape)}"
            raise ContractError(f"The {modality} adapter", wanted, got)
        embeddings = normalize(out.float(), dim=1)
        if not ((embeddings.norm(dim=1) - 1).abs() < 1e-3).all():  # so that NaN fails, too
            raise ContractError(
                f"The {modality} adapter", "finite embeddings, none zero", "NaN, infinity or zero"
            )
        return embeddings.cpu()

    # -- scores ----------------------------------------------------------------------------------

    def similarity(
        self,
        queries: Tensor,
        gallery: Tensor,
        query: str | None = None,
        target: str | None = None,
    ) -> Tensor:
        """Scores `[n, m]` of embeddings `[n, dim]` of modality `query` against `[m, dim]` of
        `target`; larger is closer.

        A model of two modalities needs one of the names: the other then is the other modality. It
        can't do without both, as a hubness-corrected score differs by direction.
        """
        return self.prepare(gallery, query, target)(queries)

    def prepare(
        self, gallery: Tensor, query: str | None = None, target: str | None = None
    ) -> Callable[[Tensor], Tensor]:
        """`similarity` against a fixed gallery, as a function of the queries: what depends on the
        gallery alone is computed once."""
        query, target = self._direction(query, target)
        self._check_embeddings(gallery, target)
        score = self.scorer.prepare(gallery, query, target)

        def checked(queries: Tensor) -> Tensor:
            self._check_embeddings(queries, query)
            return score(queries)

        return checked

    def _direction(self, query: str | None, target: str | None) -> tuple[str, str]:
        for modality in (query, target):
            if modality is not None:
                self._check_known(modality)
        if query is not None and target is not None:
            return query, target
        if query == target or len(self.modalities) > 2:
            a, b = self.modalities[:2]
            raise ConfigError(
                "Scores depend on which modality asks and which is searched: name them.",
                f"model.similarity(queries, gallery, query='{b}', target='{a}')",
            )
        a, b = self.modalities
        other = {a: b, b: a}
        return (query, other[query]) if query is not None else (other[target], target)

    def _check_embeddings(self, rows: Tensor, modality: str) -> None:
        if rows.dim() != 2 or rows.shape[1] != self.dim:
            raise ConfigError(
                f"Embeddings of {modality} must be [n, {self.dim}]; these are {list(rows.shape)}.",
                f"model.encode('{modality}', [...]) gives such.",
            )

    # -- saving and loading ----------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike[str], *, name: str | None = None) -> None:
        """Write `config.json`, `model.safetensors` and the model card `README.md` to a folder.

        Whole or not at all: a model that is there is replaced when the new one is complete. `name`
        is what the card loads the model by (the folder). Raises `ArtefactError` for a folder with
        other files in it, or that can't be written, `ConfigError` or `ContractError` for a
        component that could not be built again.
        """
        import safetensors.torch

        config, tensors = self._saved_form()
        name = os.fspath(folder) if name is None else name

        def fill(path: Path) -> None:
            weights = path / files.WEIGHTS
            safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
            whole = dataclasses.replace(config, weights_sha256=file_sha256(weights))
            text = json.dumps(plain(whole, "config"), indent=1, ensure_ascii=False) + "\n"
            (path / files.CONFIG).write_text(text, encoding="utf-8")
            (path / files.CARD).write_text(model_card(whole, name), encoding="utf-8")

        files.replace_folder(Path(folder), fill)

    def _saved_form(self) -> tuple[SavedConfig, dict[str, Tensor]]:
        """The config, without the digest, and the tensors by name."""
        tensors, modalities = {}, {}
        for m, adapter in self.adapters.items():
            part = self.adapter_part(m)
            check_rebuilt(adapter, part, self.encoders[m].dim, self.dim, self.registry)
            modalities[m] = SavedModality(self.encoders[m], part)
            tensors |= {f"adapter.{m}.{key}": value for key, value in tensors_of(adapter).items()}
        part = part_of("scorer", self.scorer, self._scorer_part, self.registry)
        held = {k: v.detach().cpu().contiguous() for k, v in sorted(self.scorer.tensors.items())}
        forms = {name: describe(tensor) for name, tensor in held.items()}
        tensors |= {f"scorer.{name}": tensor for name, tensor in held.items()}
        config = SavedConfig(
            format=FORMAT,
            fusemix=version(),
            dim=self.dim,
            modalities=modalities,
            scorer=SavedScorer(part.name, part.options, part.dist, forms),
            weights_sha256="",
            recipe=self.recipe,
            objective=self.objective,
            data=self.data,
            metrics=self.metrics,
        )
        return config, tensors

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        encoders: Mapping[str, Source] | None = None,
        revision: str | None = None,
        registry: Registry = registry,
    ) -> Self:
        """The model in a folder, or in a hub repository (at `revision`).

        Strict: `ArtefactError` for anything missing, unexpected or damaged, `UnknownNameError` for
        a component that no installed plugin brings. Encoders are loaded when `encode` first needs
        them, and a saved model can only name registered ones. `encoders` overrides, modality →
        name (`timm:x`, `NAME@PATH`, `./file.py:Class`, …), spec or `Encoder` object.
        """
        device = resolve_device(device)
        folder = files.locate(source, revision)
        config = files.read_config(folder)
        adapters, scorer = load_components(folder, config, registry)
        infos = {m: saved.encoder for m, saved in config.modalities.items()}
        return cls(
            adapters,
            infos,
            scorer,
            adapter_parts={
                m: Part(s.adapter.name, s.adapter.options) for m, s in config.modalities.items()
            },
            scorer_part=Part(config.scorer.name, config.scorer.options),
            sources=encoders,
            recipe=config.recipe,
            objective=config.objective,
            data=config.data,
            metrics=config.metrics,
            device=device,
            registry=registry,
            name=os.fspath(source),
        )

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Save the model and upload it, in one commit, to a hub repository, made if need be.

        Returns the address of the repository. Raises `ArtefactError` where the hub refuses.
        """
        import huggingface_hub

        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            self.save_pretrained(folder, name=repo_id)
            try:
                api = huggingface_hub.HfApi(token=token)
                url = api.create_repo(repo_id, private=private, exist_ok=True)
                api.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message="Upload the fused model"
                )
            except Exception as error:  # its errors are those of its HTTP client
                raise ArtefactError(
                    f"The model can't be pushed to '{repo_id}': {type(error).__name__}: {error}",
                    "Check the name, the network and `hf auth login`.",
                ) from error
        return str(url)


def _as_list(modality: str, items: Iterable[Any]) -> list[Any]:
    """The items as a list; TypeError for one item where a list belongs."""
    from PIL.Image import Image

    from fusemix_core.data.media import Audio

    lone = isinstance(items, str | bytes | os.PathLike | Mapping | Audio | Image | Tensor)
    lone = lone or (isinstance(items, np.ndarray) and items.dtype.kind not in "USO")
    lone = lone or (isinstance(items, tuple) and len(items) == 2 and isinstance(items[1], int))
    if lone or not isinstance(items, Iterable):
        raise TypeError(
            f"encode takes a list of items, not one {type(items).__name__}: "
            f"model.encode('{modality}', [item])"
        )
    return list(items)
