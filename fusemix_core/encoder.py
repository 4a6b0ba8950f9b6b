"""The class that encoders subclass, and the part of one that any runtime can run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fusemix_core.padded import Padded
from fusemix_core.specs import EncoderSpec


@dataclass(frozen=True)
class Network:
    """The part of `Encoder.encode` that any runtime can run: a module, in eval mode, that is called
    with tensors by name and returns one tensor `[n, …]`. `axes` are those axes of each input whose
    size differs from batch to batch, such as `(0, 1)` of tokens `[n, T]`."""

    module: nn.Module
    axes: tuple[int, ...] = (0,)


class Encoder(ABC):
    """A frozen unimodal model. Row i of its output is item i.

    A subclass sets `spec` (on the class, when it is one encoder) and implements `load`, `collate`
    and `encode`. Weights live in attributes that are `nn.Module`s: pickling an encoder for a worker
    process leaves these out, so that `collate` there needs none of them.

    It need not be safe in threads: `encode` is called by one thread at a time, and so is `collate`
    of texts.

    An encoder that gives its `network`, and lets `encode` reach it by `compute`, is run by a faster
    runtime than torch if there is one.
    """

    spec: EncoderSpec
    runtime: Callable[[str, dict[str, Tensor]], Tensor] | None = None
    """What `compute` calls with the view and the inputs in place of the network; set while a batch
    is encoded."""
    on_device: bool = False
    """Whether `encode` takes a batch whose tensors are on the encoder's device already. On a GPU
    they are then sent from pinned memory while the batch before is encoded."""

    @classmethod
    @abstractmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The encoder that `spec` describes, frozen, in eval mode, on `device` in `dtype`."""

    @classmethod
    def fit(cls, spec: EncoderSpec, items: Sequence[Any]) -> EncoderSpec:
        """Learn from training items: the spec with the findings in `options["learnt"]`.

        Called once, before `load`, if the spec is `fitted`. The findings are plain data (strings,
        finite numbers, booleans, None, lists and tables of these). They are part of the fingerprint
        and are saved with a model. `load` must build the same encoder from it, and treat it as data
        that a stranger may have written: name no file, address or class in it.

        Args:
            spec: as registered, with the options that the user set.
            items: decoded items of the training rows, each different one once, in order of
                appearance. Never an item that only held-out rows have.

        Raises:
            DataError: Nothing can be learnt from these items.

        Example:
            longest = max(map(len, items))
            return replace(spec, options={**spec.options, "learnt": {"longest": longest}})
        """
        return spec

    @classmethod
    def learnt(cls, spec: EncoderSpec) -> Sequence[str]:
        """The findings of a fitted spec, one line each, for plans and reports: "age: number, 3%
        missing"."""
        return ()

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        """A random miniature that behaves like the real one and needs no download."""
        raise NotImplementedError(f"{cls.__name__} has no miniature")

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Any:
        """Decoded items (see `EncoderSpec.takes`) as one CPU batch. Runs in a worker.

        Raises TypeError for an item of the wrong type.
        """

    @abstractmethod
    def encode(self, batch: Any, view: str = "pooled") -> Tensor | Padded:
        """The latents of a batch: `[n, d]` for `pooled`, finite, no gradient, on any device.

        `view` is one of `spec.views`, which also says its shape. A view of which items have
        unequal lengths (`tokens` of texts, `time` of sounds) is `Padded`.
        """

    def network(self, view: str) -> Network | None:
        """What `encode` computes for the view, where another runtime may do so; else None."""
        return None

    def compute(self, view: str, **inputs: Tensor) -> Tensor:
        """What `network(view)` gives for these inputs, by the runtime in use; for `encode`."""
        if self.runtime is not None:
            return self.runtime(view, inputs)
        network = self.network(view)
        assert network is not None, f"{type(self).__name__} has no network for '{view}'"
        return network.module(**inputs)

    @classmethod
    def sample_items(cls, spec: EncoderSpec) -> Sequence[Any]:
        """Eight or more different decoded items for `fusemix_core.testing`, edge cases among them.

        Texts, pictures and sounds it makes up itself, for who returns none; any other modality
        brings its own.
        """
        return ()

    def truncated(self, items: Sequence[Any]) -> int:
        """How many of these decoded items are longer than the encoder takes, and will be cut."""
        return 0

    def collated(self, items: Sequence[Any]) -> tuple[Any, int]:
        """`collate(items)` and `truncated(items)`, as extraction asks for them.

        Override it if both do the same work, such as tokenising. One that overrides `collate` of
        a class that does overrides this too.
        """
        return self.collate(items), self.truncated(items)

    def native(self, tool: str, view: str) -> Any | None:
        """The encoder in the classes of another library, for a program without fusemix.

        Args:
            tool: the library. `sentence-transformers` is given a list of its modules, which end
                with the latents as `sentence_embedding`.
            view: which latents.

        Returns:
            What the library takes; None where it can't express the encoder.
        """
        return None

    def save_preprocessing(self, folder: Path) -> Mapping[str, Any]:
        """Write what `collate` needs to a folder, such as a tokenizer, for a program that runs the
        exported `network` without fusemix.

        Returns:
            How to prepare an item, as JSON: sizes, means, file names. Empty if nothing is said.
        """
        return {}

    def notes(self) -> Sequence[str]:
        """Sentences for the user when all is encoded, such as the cost."""
        return ()

    @property
    def weights_digest(self) -> str:
        """A digest of the weights, where `spec.weights` does not tell; see `fingerprint`.

        By default that of every parameter and buffer of the `nn.Module`s held as attributes.
        """
        from fusemix_core.digests import digest_modules

        return digest_modules(v for v in vars(self).values() if isinstance(v, nn.Module))

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v for k, v in vars(self).items() if not isinstance(v, nn.Module) and k != "runtime"
        }
