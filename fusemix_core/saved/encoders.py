"""The encoders of a fused model: loaded on first use, and only if they are those of the fit."""

from __future__ import annotations

import copy
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusemix_core.errors import ArtefactError, ConfigError, PluginError, UnknownNameError
from fusemix_core.home import home
from fusemix_core.hub import without_waiting
from fusemix_core.interfaces import Encoder, Padded
from fusemix_core.latents.backends import Work
from fusemix_core.latents.batches import batch_size_for, group_size, shard_size
from fusemix_core.latents.encoding import Encoding, ItemEncoder, can_accelerate
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.given import GivenItems
from fusemix_core.latents.sharing import forked, settle
from fusemix_core.registry import Registry
from fusemix_core.saved.components import brought_by
from fusemix_core.saved.schema import EncoderInfo
from fusemix_core.specs import EncoderSpec

Source = str | EncoderSpec | Encoder
"""Forms of an encoder that a user may give: a name for the registry, a spec, or a loaded
encoder."""


class LazyEncoder:
    """The encoder of one modality, loaded on first use.

    `source` is what the user gave; None goes by the saved name, which is then taken only if it can
    mean nothing but an encoder that an installed plugin registered. `model` is the name to show for
    the saved model, `to_name` modality → saved name of each encoder of it that only a user may
    give and did not. Raises `ConfigError` at once for a source that names nothing.
    """

    def __init__(
        self,
        info: EncoderInfo,
        source: Source | None,
        device: torch.device,
        registry: Registry,
        model: str,
        to_name: Mapping[str, str] | None = None,
    ) -> None:
        if source is not None and not isinstance(source, Source):
            raise ConfigError(
                f"{source!r} is not an encoder for {info.modality}.",
                "Give a name, an EncoderSpec, or a loaded Encoder object.",
            )
        self.info = info
        self.device = device
        self.model = model
        self._to_name = dict(to_name or {})
        self._registry = registry
        self._source = (
            registry.encoder(source, info.modality) if isinstance(source, str) else source
        )
        self._loaded: Encoder | None = None
        self._runtime: Any = None
        self._judged = 0
        """For how many items a faster runtime was looked for."""
        self._lock, self._lock_of = threading.RLock(), os.getpid()

    # -- in copies and in other processes --------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> LazyEncoder:
        """A copy with the same encoder: it is frozen."""
        return copy.copy(self)

    def __copy__(self) -> LazyEncoder:
        new = object.__new__(type(self))
        vars(new).update(vars(self), _lock=threading.RLock(), _lock_of=os.getpid())
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Without an encoder that its spec can load again; one that the user gave goes along."""
        state = {**vars(self), "_loaded": None, "_runtime": None, "_judged": 0}
        del state["_lock"]
        if isinstance(self._source, Encoder):
            state["_source"] = _Whole(self._source)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock(), _lock_of=os.getpid())

    # -- loading ---------------------------------------------------------------------------------

    @property
    def given(self) -> Encoder | None:
        """The encoder as an object, if there is one already: given by the user, or loaded."""
        return self._source if isinstance(self._source, Encoder) else self._loaded

    @property
    def spec(self) -> EncoderSpec:
        """The spec to load. Raises `ArtefactError` for a saved name that only a user may give, and
        for an encoder that has not the view of the fit."""
        given = self._source.spec if isinstance(self._source, Encoder) else self._source
        spec = self._with_findings(given or self._saved_spec())
        if self.info.view not in spec.views:
            raise ArtefactError(
                f"This model takes the view '{self.info.view}' of its {self.info.modality} encoder "
                f"{self.info.name!r}; '{spec.name}' has {', '.join(spec.views)}.",
                "Install the version of the fit, or give the encoder of the fit.",
            )
        return spec

    def _with_findings(self, spec: EncoderSpec) -> EncoderSpec:
        """The spec; of a fitted encoder, with the findings of the fit."""
        if not spec.unfitted:
            return spec
        own = {key: value for key, value in self.info.options.items() if key in spec.options}
        spec = replace(spec, options={**spec.options, **own})
        if spec.unfitted:
            raise ArtefactError(
                f"This model has no findings of its {self.info.modality} encoder "
                f"{self.info.name!r}, which learns from training items.",
                "Give the encoder of the fit as a spec or an object.",
            )
        return spec

    def load(self) -> Encoder:
        """The encoder. Raises `ArtefactError` if it is not the one of the fit."""
        with self._mine():
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def encoded(
        self, items: list[Any], how: Encoding
    ) -> Iterator[tuple[list[int], Tensor | Padded]]:
        """(numbers of items, their latents) in batches, by the way that extraction takes.

        items: as `GivenItems` takes them. Of `how` the batch, the runtime and the workers count.
        Raises `DataError` for an item that can't be decoded, `ContractError` for an encoder that
        misbehaves, and what `load` raises.
        """
        encoder, info = self.load(), self.info
        source = GivenItems(info.modality, items, info.takes)
        batch = batch_size_for(encoder.spec, how.batch_size, self.device)
        with ItemEncoder(
            source, info.view, [encoder], [self.device], batch,
            workers=how.workers, reject=source.reject,
        ) as run:  # fmt: skip
            run.runtime = self._faster(run, len(items), how)
            size = group_size(encoder.spec, info.view, batch.items, shard_size(len(items)))
            for one in run.encoded(range(len(items)), size):
                for index, latents in one.parts():
                    yield index, latents.tensor()

    def _faster(self, run: ItemEncoder, count: int, how: Encoding) -> Any:
        """A faster runtime for the encoder, kept from when it was found; None for torch.

        It is looked for again when there is much more to encode than the last time, as what does
        not pay for a few items may pay for many.
        """
        if not can_accelerate([self.device], how) or how.backend == "eager" or forked():
            return None
        forced = how.backend == "openvino"
        with self._mine():
            if self._runtime is None and (forced or count > 4 * self._judged):
                work = Work(self.info.view, self.info.fingerprint, home(), count)
                said = run.accelerate(range(count), work, how.backend)
                if said and forced:
                    warnings.warn(said, stacklevel=4)
                self._judged, self._runtime = count, run.runtime
            return self._runtime

    @contextmanager
    def _mine(self) -> Iterator[None]:
        """While one thread loads the encoder, the others wait. A forked process has a lock of its
        own: a thread that did not come along may hold this one."""
        if forked() and self._lock_of != os.getpid():
            self._lock, self._lock_of = threading.RLock(), os.getpid()
        with self._lock:
            yield

    def _load(self) -> Encoder:
        settle()
        spec, dtype = self.spec, self.info.dtype
        known = fingerprint(spec, dtype)
        if known is not None:
            self.check(known)  # before a large model is loaded in vain
        encoder = self.given
        if encoder is None:
            spec.check_requirements()
            target = self._registry.target_of(spec)
            with without_waiting(spec, self._registry):
                encoder = target.load(spec, self.device, getattr(torch, dtype))
        digest = encoder.weights_digest
        self.check(known or fingerprint(spec, dtype, digest), digest)
        return encoder

    def check(self, found: str | None, digest: str | None = None) -> None:
        """Raise `ArtefactError` unless `found` is the encoder's fingerprint of the fit, or would be
        if items were decoded as they first were."""
        info = self.info
        if found == info.fingerprint:
            return
        if found and info.fingerprint == fingerprint(self.spec, info.dtype, digest, decoding=1):
            return
        raise ArtefactError(
            f"The {info.modality} encoder {info.name!r} is not the one this model was trained "
            f"with: its fingerprint was {info.fingerprint!r}, and is {found!r}. Its latents would "
            "not fit the adapter.",
            f"Its weights, preprocessing or version changed{self._origin()}. Install the version "
            "of then, fit the model anew, or give the encoder of then:\n"
            + self._line({info.modality: "NAME@PATH"}),
        )

    def _saved_spec(self) -> EncoderSpec:
        """The spec of the saved name, for which nothing is fetched and no file is run."""
        info = self.info
        if not info.registered:
            names = {**self._to_name, info.modality: info.name}
            raise ArtefactError(
                f"The {info.modality} encoder of this model is {info.name!r}: a hub's, or a local "
                "file. Nothing is fetched or run because a saved model says so.",
                "If you trust it, name it yourself:\n"
                + self._line({m: _with_folders(name) for m, name in names.items()}),
            )
        try:
            return self._registry.encoder(info.name)
        except UnknownNameError as error:
            raise UnknownNameError(
                error.message, f"{error.hint}\n{brought_by(info.name, info.dist)}".strip()
            ) from None
        except PluginError:
            if not info.dist:
                raise
            return self._registry.encoder(f"{info.dist}/{info.name}")

    def _origin(self) -> str:
        origin = [f"package {self.info.dist}"] if self.info.dist else []
        origin += [self.info.weights] if self.info.weights else []
        return f" (it came from {', '.join(origin)})" if origin else ""

    def _line(self, names: Mapping[str, str]) -> str:
        """How to name these encoders, modality → name, in Python and on the command line."""
        options = " ".join(f"-e {modality}={name}" for modality, name in names.items())
        return (
            f"    FusedModel.from_pretrained({self.model!r}, encoders={dict(names)!r})\n"
            f"On the command line: {options}"
        )


def _with_folders(name: str) -> str:
    """A saved name with a place-holder where the folders of local files were left out."""
    base, at, path = name.partition("@")
    if ".py:" in base:
        base = f"./{base}"
    return f"{base}{at}/path/to/{path}" if at else base


class _Whole:
    """An encoder whose pickle has its weights: by itself it leaves them out, for workers that only
    collate."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __reduce__(self) -> tuple[Any, ...]:
        state = {k: v for k, v in vars(self.encoder).items() if k != "runtime"}
        return _restored, (type(self.encoder), state)


def _restored(cls: type[Encoder], state: dict[str, Any]) -> Encoder:
    encoder = object.__new__(cls)
    vars(encoder).update(state)
    return encoder
