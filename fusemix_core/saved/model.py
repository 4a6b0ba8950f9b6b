"""`SavedModel`: what every artefact is, whatever it does; and `load`, which finds the class."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fusemix_core.config import Backend
from fusemix_core.devices import resolve_device
from fusemix_core.digests import file_sha256
from fusemix_core.disk import give_usual_mode
from fusemix_core.errors import ArtefactError, ConfigError, PluginError, UnknownNameError
from fusemix_core.interfaces import Padded, cat_latents
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.given import as_list
from fusemix_core.latents.sharing import settle
from fusemix_core.registry import Registry, registry
from fusemix_core.saved import folder as files
from fusemix_core.saved.card import model_card
from fusemix_core.saved.components import (
    ROTATION,
    SEEN,
    Built,
    brought_by,
    check_rebuilt,
    distribution_of,
    load_parts,
    load_rotation,
    load_seen,
)
from fusemix_core.saved.encoders import LazyEncoder, Source
from fusemix_core.saved.schema import (
    FORMAT,
    RECORD,
    EncoderInfo,
    SavedConfig,
    SavedPart,
    as_json,
    check_modality,
    check_part_name,
    kind_of_part,
)
from fusemix_core.versions import version

KIND = "artefact"
"""The kind of component that the classes of saved models are."""


class SavedModel:
    """A model on disk: frozen encoders by name, components by name, and a record of the fit.

    A kind of artefact is a subclass, registered as a component of the kind `artefact` under the
    name that is its `kind`. `load` finds it by that name. A subclass adds what the model does; one
    whose constructor takes something else than encoders and parts overrides `from_parts`.

    Args:
        encoders: modality → what its latents came from.
        parts: name → component. A name begins with the kind of component: `scorer`,
            `adapter.image`.
        sources: modality → what to load in place of the saved name: a registry name, an
            `EncoderSpec`, or a loaded `Encoder`.
        recipe, objective, data, metrics: facts to record, shown in the model card.
        device: where modules run; `auto` is the accelerator if there is one.
        name: what the model is called in messages.

    Attributes:
        seen: modality → sorted int32 keys of the items that it was trained on, 32 bits of the
            content of each, by which `fusemix eval` sees what of its data is not new. Empty it
            before saving if nobody may know.
        rotation: float32 `[d, d]`, orthogonal: it orders the dimensions of a shared space by how
            much of the training embeddings is in them. None if there is none.

    Example:
        class Lengths(SavedModel):
            kind = "lengths"

            def encode(self, texts):
                adapter = self.parts["adapter.text"].component
                return adapter(input_of(adapter, self.latents("text", texts)))

        registry.add_component("artefact", "lengths", Lengths)
    """

    kind: ClassVar[str]
    made_by: ClassVar[str] = ""
    """The command that saves such a model, for the hint where one of another kind is given."""

    def __init__(
        self,
        encoders: Mapping[str, EncoderInfo],
        parts: Mapping[str, Built],
        *,
        sources: Mapping[str, Source] | None = None,
        recipe: Mapping[str, Any] | None = None,
        objective: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        device: str | torch.device = "auto",
        registry: Registry = registry,
        name: str = "path/to/model",
    ) -> None:
        if not encoders:
            raise ConfigError("A saved model has one encoder or more.")
        for modality in encoders:
            check_modality(modality)
        for part in parts:
            check_part_name(part)
        self.name = name
        self.device = resolve_device(device)
        self.registry = registry
        self.encoders = dict(encoders)
        self.seen: dict[str, Tensor] = {}
        self.rotation: Tensor | None = None
        self.parts = dict(parts)
        for built in parts.values():
            if isinstance(built.component, nn.Module):
                built.component.to(self.device).eval()
        self.recipe = as_json(recipe or {}, "recipe")
        self.objective = as_json(objective or {}, "objective")
        self.data = as_json(data or {}, "data")
        self.metrics = as_json(metrics or {}, "metrics")
        self._sources = dict(sources or {})
        for modality in self._sources:
            self._check_known(modality)
        to_name = {
            m: info.name
            for m, info in self.encoders.items()
            if not info.registered and m not in self._sources
        }
        self._encoders = {
            m: LazyEncoder(info, self._sources.get(m), self.device, registry, name, to_name)
            for m, info in self.encoders.items()
        }

    @classmethod
    def from_parts(
        cls, encoders: Mapping[str, EncoderInfo], parts: Mapping[str, Built], **more: Any
    ) -> Self:
        """The model of loaded parts; `more` are the keywords of `SavedModel`.

        Raises `ArtefactError` for parts that are not those of this kind.
        """
        return cls(encoders, parts, **more)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities, in the order of the fit."""
        return tuple(self.encoders)

    def encoder(self, modality: str) -> LazyEncoder:
        """The encoder of a modality, which is loaded on first use: its `spec`, its `load`."""
        self._check_known(modality)
        return self._encoders[modality]

    def part(self, name: str) -> SavedPart:
        """How a part is saved: its registered name, arguments and options."""
        if name not in self.parts:
            raise UnknownNameError.of("part of this model", name, self.parts)
        return self.parts[name].saved(kind_of_part(name), self.registry)

    def _check_known(self, modality: object) -> None:
        if modality not in self.encoders:
            raise UnknownNameError.of("modality of this model", str(modality), self.modalities)

    # -- items to latents ------------------------------------------------------------------------

    def latents(
        self,
        modality: str,
        items: Iterable[Any],
        batch_size: int | None = None,
        *,
        backend: Backend = "auto",
    ) -> Tensor | Padded:
        """The latents of raw items by the encoder of a modality, in the view of the fit.

        Takes the way of extraction: the same batches, runtime and checks. The arguments and errors
        are those of `FusedModel.encode`.

        Returns:
            float32 `[n, ...]` on the CPU, row i of item i; `Padded` where items differ in length.
            `[0, dim]` for no items.
        """
        items = self._as_items(modality, items)
        places: list[int] = []
        found: list[Tensor | Padded] = []
        for index, latents in self._encoded(modality, items, batch_size, backend):
            places += index
            found.append(latents)
        if not found:
            return torch.zeros(0, self.encoders[modality].dim)
        return cat_latents(found)[torch.tensor(places).argsort()]

    def _as_items(self, modality: str, items: Iterable[Any]) -> list[Any]:
        self._check_known(modality)
        return as_list(modality, items)

    def _encoded(
        self, modality: str, items: list[Any], batch_size: int | None, backend: Backend
    ) -> Iterator[tuple[list[int], Tensor | Padded]]:
        """(numbers of items, their latents), batch by batch."""
        dtype = self.encoders[modality].dtype
        how = Encoding(self.device, dtype, batch_size=batch_size, backend=backend)
        if items:
            yield from self._encoders[modality].encoded(items, how)

    # -- saving ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike[str], *, name: str | None = None) -> None:
        """Write `config.json`, `model.safetensors` and the model card `README.md` to a folder.

        Whole or not at all: a model that is there is replaced when the new one is complete.

        Args:
            folder: an empty or new folder, or one that contains a saved model.
            name: what the card loads the model by (the folder; of an absolute path its last part).

        Raises:
            ArtefactError: the folder contains other files, or can't be written.
            ConfigError, ContractError: a component could not be built again.
        """
        import safetensors.torch

        settle()
        config, tensors = self._saved_form()
        if name is None:  # no path of this machine in what strangers read
            name = Path(folder).name if Path(folder).is_absolute() else os.fspath(folder)

        def fill(path: Path) -> None:
            weights = path / files.WEIGHTS
            safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
            give_usual_mode(weights)
            whole = dataclasses.replace(config, weights_sha256=file_sha256(weights))
            values = as_json(whole, "config")
            if not whole.rotation:
                del values["rotation"]  # which format 2 does not know
            text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
            (path / files.CONFIG).write_text(text, encoding="utf-8")
            (path / files.CARD).write_text(self.card(whole, name), encoding="utf-8")

        files.replace_folder(Path(folder), fill)

    def card(self, config: SavedConfig, name: str) -> str:
        """The model card of this model, saved with this config, that is loaded by `name`."""
        return model_card(config, name)

    def _saved_form(self) -> tuple[SavedConfig, dict[str, Tensor]]:
        """The config, without the digest, and the tensors by name."""
        tensors, parts = {}, {}
        for name, built in self.parts.items():
            parts[name] = self.part(name)
            if isinstance(built.component, nn.Module):
                kind = kind_of_part(name)
                check_rebuilt(kind, built.component, parts[name], self.registry)
            tensors |= {f"{name}.{key}": value for key, value in built.tensors.items()}
        tensors |= {f"{SEEN}.{m}": keys.contiguous() for m, keys in self.seen.items()}
        if self.rotation is not None:
            tensors[ROTATION] = self.rotation.contiguous()
        plain = self.rotation is None and "correction" not in map(kind_of_part, parts)
        config = SavedConfig(
            format=2 if plain else FORMAT,
            kind=self.kind,
            fusemix=version(),
            encoders=self.encoders,
            parts=parts,
            weights_sha256="",
            dist=self._dist(),
            seen={m: len(keys) for m, keys in self.seen.items()},
            rotation=0 if self.rotation is None else len(self.rotation),
            **{fact: getattr(self, fact) for fact in RECORD},
        )
        return config, tensors

    def _dist(self) -> str:
        """The distribution that registered this kind; empty for user code."""
        specs = [spec for _, spec in self.registry.all_components(KIND) if spec.name == self.kind]
        return distribution_of(specs[0], self.registry) if specs else ""

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Save the model and upload it, in one commit, to a hub repository, made if need be.

        Returns:
            The address of the repository.

        Raises:
            ArtefactError: the hub refuses.
        """
        import huggingface_hub

        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            self.save_pretrained(folder, name=repo_id)
            try:
                api = huggingface_hub.HfApi(token=token)
                url = api.create_repo(repo_id, private=private, exist_ok=True)
                api.upload_folder(
                    repo_id=repo_id, folder_path=folder, commit_message="Upload the model"
                )
            except Exception as error:  # its errors are those of its HTTP client
                raise ArtefactError(
                    f"The model can't be pushed to '{repo_id}': {type(error).__name__}: {error}",
                    "Check the name, the network and `hf auth login`.",
                ) from error
        return str(url)

    # -- loading ---------------------------------------------------------------------------------

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
        """The model in a folder, or in a hub repository.

        Encoders are loaded when they are first needed, and a saved model can only name registered
        ones.

        Args:
            source: a folder that `save_pretrained` wrote, a run's folder, or a hub id.
            device: where to run.
            encoders: modality → what to load in place of the saved name: a name (`timm:x`,
                `NAME@PATH`, `./file.py:Class`, …), a spec or an `Encoder` object.
            revision: of the hub repository.

        Raises:
            ArtefactError: anything is missing, unexpected or damaged, or the model is of another
                kind.
            UnknownNameError: no installed plugin brings a component, or the kind.
        """
        settle()
        device = resolve_device(device)
        folder = files.locate(source, revision)
        config = files.read_config(folder)
        target = cls._class_of(config, os.fspath(source), registry)
        model = target.from_parts(
            config.encoders,
            load_parts(folder, config, registry),
            sources=encoders,
            device=device,
            registry=registry,
            name=os.fspath(source),
            **{fact: getattr(config, fact) for fact in RECORD},
        )
        model.seen = load_seen(folder, config)
        model.rotation = load_rotation(folder, config)
        return model

    @classmethod
    def _class_of(cls, config: SavedConfig, source: str, registry: Registry) -> type[Self]:
        """This class, or the subclass of it that is registered for the saved kind."""
        if config.kind == getattr(cls, "kind", None):
            return cls
        target = _registered_class(config, registry)
        if not issubclass(target, cls):
            given = f"Give what {cls.made_by} wrote; " if cls.made_by else ""
            raise ArtefactError(
                f"{source} is a model of the kind '{config.kind}', not of '{cls.kind}'.",
                f"{given}fusemix_core.load({source!r}) loads any kind.",
            )
        return target


def _registered_class(config: SavedConfig, registry: Registry) -> type[SavedModel]:
    """The class that is registered for a saved model's kind."""
    try:
        spec = registry.component(KIND, config.kind)
    except UnknownNameError as error:
        raise UnknownNameError(
            error.message, f"{error.hint}\n{brought_by(config.kind, config.dist)}".strip()
        ) from None
    except PluginError:  # two distributions claim the name: it was saved with one of them
        spec = registry.component(KIND, f"{config.dist}/{config.kind}")
    spec.check_requirements()
    target = registry.target_of(spec)
    if not (isinstance(target, type) and issubclass(target, SavedModel)):
        raise PluginError(f"The artefact '{spec.name}' is not a subclass of SavedModel.")
    return target


def load(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device = "auto",
    encoders: Mapping[str, Source] | None = None,
    revision: str | None = None,
    registry: Registry = registry,
) -> SavedModel:
    """The saved model in a folder or a hub repository, as the class of its kind.

    Arguments and errors are those of `SavedModel.from_pretrained`.

    Example:
        model = fusemix_core.load("runs/first/model")
    """
    return SavedModel.from_pretrained(
        source, device=device, encoders=encoders, revision=revision, registry=registry
    )
