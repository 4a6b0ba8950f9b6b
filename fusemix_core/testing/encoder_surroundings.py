"""What an encoder must hold: how it is listed, its fingerprint, and the process around it.

More checks of the suite in `encoder_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.interfaces import Encoder
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.testing.encoder_case import ENCODER, EncoderCase
from fusemix_core.testing.suite import expect
from fusemix_core.testing.watch import ENVIRONMENT, LOGGING, RANDOM, TORCH
from fusemix_core.testing.worker import heavy, imported_by_listing


@ENCODER.check(when=lambda case: bool(case.plugin))
def light_import(case: EncoderCase) -> None:
    """Listing the plugin's encoders imports neither torch nor any other heavy package."""
    spec = case.spec
    imported = imported_by_listing(case.plugin, spec.name, spec.modality)
    found = heavy(imported, spec.requires)
    expect(not found, f"listing {case.plugin} imports {', '.join(found)}")


# -- the fingerprint -------------------------------------------------------------------------------


@ENCODER.check()
def stable_fingerprint(case: EncoderCase) -> None:
    """The fingerprint is the same each time, after encoding, and for the encoder made again."""
    digest = case.encoder.weights_digest
    expect(isinstance(digest, str) and digest, f"weights_digest is {digest!r}")
    expect(fingerprint(case.spec, "float32", digest), "there is no fingerprint")
    case.raw(case.items[:2])
    expect(case.encoder.weights_digest == digest, "weights_digest changed by encoding")
    again, _ = case.again
    expect(again == digest, "made again, the encoder has another weights_digest")


@ENCODER.check()
def fingerprint_follows_weights(case: EncoderCase) -> None:
    """Other weights give another fingerprint."""
    before = case.encoder.weights_digest
    weights = [(n, t) for n, t in case.tensors().items() if t.numel()]
    for name, tensor in (*weights[:1], *weights[-1:]):
        with changed(tensor):
            after = case.encoder.weights_digest
        expect(after != before, f"{name} was changed, but not weights_digest")
    if weights or fingerprint(case.spec, "float32") is not None:
        return
    if case.spec.weights and type(case.encoder).weights_digest is Encoder.weights_digest:
        expect(
            False,
            "it holds its weights in no nn.Module and no revision or sha256 pins them: "
            "override weights_digest",
        )
    for name, array in arrays(case.encoder):
        with changed(array):
            rows, after = case.rows(case.items), case.encoder.weights_digest
        wanted = case.latents[case.spec.views[0]]
        moved = any(not torch.equal(r, w) for r, w in zip(rows, wanted, strict=True))
        expect(
            after != before or not moved,
            f"`{name}` decides the latents but is not in weights_digest: "
            "hold it in an nn.Module, or override weights_digest",
        )


def arrays(encoder: Encoder) -> Iterator[tuple[str, Any]]:
    """Tensors and arrays of floats that are attributes of the encoder or of its classes."""
    scopes = [vars(encoder), *(vars(c) for c in type(encoder).__mro__)]
    for scope in scopes:
        for name, value in scope.items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                yield name, value
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
                yield name, value


class changed:  # noqa: N801  reads as what it does
    """A tensor or array with other values inside the block, and its own after it."""

    def __init__(self, values: Any) -> None:
        self.values: Any = values.detach() if isinstance(values, Tensor) else values

    def __enter__(self) -> None:
        tensor = isinstance(self.values, Tensor)
        self.kept = self.values.clone() if tensor else self.values.copy()
        with torch.inference_mode(tensor and self.values.is_inference()):
            self.values[...] = 1 - self.values if self.values.dtype != torch.bool else ~self.values

    def __exit__(self, *_: object) -> None:
        with torch.inference_mode(isinstance(self.values, Tensor) and self.values.is_inference()):
            self.values[...] = self.kept


# -- the process around it -------------------------------------------------------------------------


def unchanged(case: EncoderCase, kind: str) -> None:
    """Fail if making the encoder, collating or encoding changed anything of this kind."""
    _, changes = case.again
    expect(not changes[kind], "; ".join(changes[kind]))


@ENCODER.check()
def random_state(case: EncoderCase) -> None:
    """The global generators of torch, numpy and random are as before."""
    unchanged(case, RANDOM)


@ENCODER.check()
def torch_settings(case: EncoderCase) -> None:
    """torch's default dtype and device, threads and modes are as before."""
    unchanged(case, TORCH)


@ENCODER.check()
def environment(case: EncoderCase) -> None:
    """The environment's variables, the working folder and sys.path are as before."""
    unchanged(case, ENVIRONMENT)


@ENCODER.check()
def logging(case: EncoderCase) -> None:
    """Loggers and warnings filters are as before."""
    unchanged(case, LOGGING)
