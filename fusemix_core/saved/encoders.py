"""The encoders of a fused model: loaded on first use, and only if they are those of the fit."""

from __future__ import annotations

import torch

from fusemix_core.errors import ArtefactError, ConfigError, PluginError, UnknownNameError
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry
from fusemix_core.saved.components import brought_by
from fusemix_core.saved.schema import EncoderInfo
from fusemix_core.specs import EncoderSpec

Source = str | EncoderSpec | Encoder
"""What a user may give as an encoder: a name for the registry, a spec, or a loaded encoder."""


class LazyEncoder:
    """The encoder of one modality, loaded on first use.

    `source` is what the user gave; None goes by the saved name, which is then taken only if it can
    mean nothing but an encoder that an installed plugin registered. `model` is the name to show for
    the saved model. Raises `ConfigError` at once for a source that names nothing.
    """

    def __init__(
        self,
        info: EncoderInfo,
        source: Source | None,
        device: torch.device,
        registry: Registry,
        model: str,
    ) -> None:
        if source is not None and not isinstance(source, Source):
            raise ConfigError(
                f"{source!r} is no encoder for {info.modality}.",
                "Give a name, an EncoderSpec, or a loaded Encoder object.",
            )
        self.info = info
        self.device = device
        self.model = model
        self._registry = registry
        self._source = (
            registry.encoder(source, info.modality) if isinstance(source, str) else source
        )
        self._loaded: Encoder | None = None

    @property
    def given(self) -> Encoder | None:
        """The encoder as an object, where there is one already: given by the user, or loaded."""
        return self._source if isinstance(self._source, Encoder) else self._loaded

    @property
    def spec(self) -> EncoderSpec:
        """The spec to load. Raises `ArtefactError` for a saved name that only a user may give, and
        for an encoder that has not the view of the fit."""
        given = self._source.spec if isinstance(self._source, Encoder) else self._source
        spec = given or self._saved_spec()
        if self.info.view not in spec.views:
            raise ArtefactError(
                f"This model takes the view '{self.info.view}' of its {self.info.modality} encoder "
                f"{self.info.name!r}; '{spec.name}' has {', '.join(spec.views)}.",
                "Install the version of the fit, or give the encoder of the fit.",
            )
        return spec

    def load(self) -> Encoder:
        """The encoder. Raises `ArtefactError` where it is not the one of the fit."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> Encoder:
        spec, dtype = self.spec, self.info.dtype
        known = fingerprint(spec, dtype)
        if known is not None:
            self.check(known)  # before a large model is loaded in vain
        encoder = self.given
        if encoder is None:
            spec.check_requirements()
            target = self._registry.target_of(spec)
            encoder = target.load(spec, self.device, getattr(torch, dtype))
        self.check(known or fingerprint(spec, dtype, encoder.weights_digest))
        return encoder

    def check(self, found: str | None) -> None:
        """Raise `ArtefactError` unless `found` is the encoder's fingerprint of the fit."""
        info = self.info
        if found == info.fingerprint:
            return
        raise ArtefactError(
            f"The {info.modality} encoder {info.name!r} is not the one this model was trained "
            f"with: its fingerprint was {info.fingerprint!r}, and is {found!r}. Its latents would "
            "not fit the adapter.",
            f"Its weights, preprocessing or version changed{self._origin()}. Install the version "
            "of then, fit the model anew, or give the encoder of then:\n" + self._line("NAME@PATH"),
        )

    def _saved_spec(self) -> EncoderSpec:
        """The spec of the saved name, for which nothing is fetched and no file is run."""
        info = self.info
        if not info.registered:
            raise ArtefactError(
                f"The {info.modality} encoder of this model is {info.name!r}: a hub's, or a local "
                "file. Nothing is fetched or run because a saved model says so.",
                "If you trust it, name it yourself:\n" + self._line(_with_folders(info.name)),
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

    def _line(self, name: str) -> str:
        return (
            f"    FusedModel.from_pretrained({self.model!r}, "
            f"encoders={{{self.info.modality!r}: {name!r}}})"
        )


def _with_folders(name: str) -> str:
    """A saved name with a place-holder where the folders of local files were left out."""
    base, at, path = name.partition("@")
    if ".py:" in base:
        base = f"./{base}"
    return f"{base}{at}/path/to/{path}" if at else base
