"""An encoder's network as an ONNX file: exported once, kept under the home, run on the CPU.

`<home>/exports/<encoder's fingerprint>/<view>-<versions>-<SHA-256>.onnx`: the name contains the
content's digest, so that a damaged file is known before it is used, and appears by rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_core.digests import file_sha256
from fusemix_core.disk import make_folder, write_atomically
from fusemix_core.interfaces import Encoder, Network
from fusemix_core.latents import runtime

NEEDED, EXTRA = runtime.NEEDED, runtime.EXTRA
_VERSION = "1"
"""Of the way in which networks are exported here."""


def missing() -> str | None:
    """The first package of `NEEDED` that is not installed. Imports nothing."""
    return runtime.absent(*NEEDED)


class Session:
    """A network in OpenVINO on the CPU, in float32, on as many threads as torch uses."""

    def __init__(self, path: Path) -> None:
        self._request = runtime.request(path, torch.get_num_threads())
        self._takes = {given.any_name for given in self._request.model_inputs}

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The network's output for its inputs by name."""
        arrays = {k: v.contiguous().numpy() for k, v in inputs.items() if k in self._takes}
        self._request.infer(arrays)
        return torch.from_numpy(self._request.get_output_tensor().data.copy())


class Exports:
    """The exported files of one view of one encoder, in `folder`."""

    def __init__(self, home: Path, fingerprint: str, view: str) -> None:
        self.folder = home / "exports" / fingerprint
        self._name = f"{view}-{versions()}"

    def find(self) -> Path | None:
        """The kept file, if it is whole; a damaged one is deleted."""
        for path in sorted(self.folder.glob(f"{self._name}-*.onnx")):
            with contextlib.suppress(OSError):
                if file_sha256(path) == path.stem.rpartition("-")[2]:
                    return path
                path.unlink()
        return None

    def make(self, network: Network, inputs: Mapping[str, Tensor]) -> Path:
        """Export the network and keep the file, in place of any other that is kept.

        `inputs` are those of some batch. Raises what the exporter, or writing, raises.
        """
        content = exported(network, inputs)
        path = self.folder / f"{self._name}-{hashlib.sha256(content).hexdigest()}.onnx"
        make_folder(self.folder)
        write_atomically(path, [content])
        for old in self.folder.glob(f"{self._name}-*.onnx"):
            if old != path:
                old.unlink(missing_ok=True)
        return path


def exported(network: Network, inputs: Mapping[str, Tensor], outputs: Sequence[str] = ()) -> bytes:
    """The network as an ONNX file, made by torch's exporter from a batch's inputs; `outputs` are
    the names of what it returns."""
    varying = dict.fromkeys(network.axes, torch.export.Dim.DYNAMIC)
    content = io.BytesIO()
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _ByPosition(network.module, tuple(inputs)).eval(),
            tuple(_few(inputs).values()),
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs) or None,
            dynamic_shapes=(tuple(varying for _ in inputs),),
        )
        assert program is not None  # by dynamo
        # pyrefly: ignore[bad-argument-type]  # `onnx.save` takes a file as well as a path
        program.save(content)
    return content.getvalue()


def inputs_of(
    encoder: Encoder, network: Network, view: str, items: Sequence[Any]
) -> dict[str, Tensor] | None:
    """The network's inputs for a batch of some items; None if `encode` goes another way."""
    seen: list[dict[str, Tensor]] = []

    def noted(name: str, inputs: dict[str, Tensor]) -> Tensor:
        seen.append(inputs)
        return network.module(**inputs)

    if not items:
        return None
    before, encoder.runtime = encoder.runtime, noted
    try:
        encoder.encode(encoder.collate(items), view)
    finally:
        encoder.runtime = before
    return {name: value.cpu() for name, value in seen[0].items()} if seen else None


class _ByPosition(nn.Module):
    """A module called by name, for an exporter that calls by position."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module(**dict(zip(self.names, inputs, strict=True)))


def _few(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Two rows of the inputs or more: one would be taken for a constant, and a number that is also
    another axis' size for the same axis."""
    sizes = {size for tensor in inputs.values() for size in tensor.shape[1:]}
    count = next(n for n in range(2, 100) if n not in sizes)
    return {k: v[torch.arange(count) % len(v)].clone() for k, v in inputs.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its own developers."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def versions() -> str:
    """8 hex characters for all that decides the file but the encoder."""
    found = [f"{name} {metadata.version(name)}" for name in ("torch", *NEEDED)]
    return hashlib.blake2b(repr([_VERSION, *found]).encode(), digest_size=4).hexdigest()
