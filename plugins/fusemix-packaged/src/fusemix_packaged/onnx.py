"""The base class of encoders that ONNX Runtime runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
import torch

from fusemix_core.digests import file_sha256
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.packaged import packaged_weights
from fusemix_core.specs import EncoderSpec


class OnnxEncoder(Encoder):
    """An encoder whose network is an ONNX file. It runs on the CPU, in the file's own precision."""

    takes: type
    """The type of a decoded item."""

    def __init__(self, spec: EncoderSpec, path: Path) -> None:
        self.spec = spec
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                self.graph(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of ONNX Runtime's and onnx's many kinds
            raise ArtefactError(
                f"{path} can't be loaded as a model for {spec.name}: {error}",
                f"Give an ONNX file with the inputs and outputs of {spec.weights or spec.name}.",
            ) from error

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The file in its package, its SHA-256 checked, or with `NAME@PATH` the user's.

        Raises:
            ConfigError: a device or a precision that it does not run in.
            ArtefactError: the weights are missing or damaged.
        """
        if device.type != "cpu" or dtype != torch.float32:
            raise ConfigError(
                f"{spec.name} runs on the CPU in float32, not in {str(dtype)[6:]} on {device}.",
                "Use --device cpu --dtype float32.",
            )
        return cls(spec, Path(spec.weights) if spec.local else packaged_weights(spec))

    def graph(self, path: Path) -> str | bytes:
        """The graph for ONNX Runtime: the file, or a part of it."""
        return str(path)

    @property
    def weights_digest(self) -> str:
        """The digest of the file; its weights are not torch's."""
        return file_sha256(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "session"}

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, np.ndarray]) -> list[Any]:
        """The named outputs of the network, or all of them, as arrays."""
        return [np.asarray(found) for found in self.session.run(outputs, dict(inputs))]

    def check(self, items: Sequence[Any]) -> None:
        """Raise TypeError for an item of another type than `takes`."""
        for item in items:
            if not isinstance(item, self.takes):
                wanted = self.takes.__name__
                raise TypeError(f"{self.spec.name} takes {wanted}, not {type(item).__name__}")

    def check_view(self, view: str) -> None:
        """Raise ConfigError for a view that the encoder does not have."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
