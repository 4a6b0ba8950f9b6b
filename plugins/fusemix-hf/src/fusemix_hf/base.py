"""`HfEncoder`: what the encoders of text, images and audio share."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from fusemix_core.devices import out_of_memory
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.interfaces import Encoder, Network, Padded
from fusemix_core.specs import EncoderSpec, kind_of
from fusemix_hf.files import first_line
from fusemix_hf.loading import frozen, load_with_gaps

POOLER = r"(^|\.)pooler\."
"""The pooler of a BERT or ViT. Many checkpoints lack it: then it is not used."""
DECODER = r"^decoder\."


class HfEncoder(Encoder):
    """A transformers model and its own processor.

    A model of several towers gives the features of the tower `spec.options["tower"]`, in the space
    that its towers share. Of an encoder with a decoder the encoder is used.
    """

    on_device = True

    def __init__(
        self,
        spec: EncoderSpec,
        model: PreTrainedModel,
        processor: Any,
        device: torch.device,
        dtype: torch.dtype,
        *,
        pooler: bool = True,
    ) -> None:
        self.spec = spec
        self.device, self.dtype = device, dtype
        self.processor = processor
        self.pooler = pooler
        self.config = model.config
        tower = spec.options.get("tower")
        self.method = f"get_{tower}_features" if tower else "forward"
        if not tower and model.config.is_encoder_decoder:
            model = model.get_encoder()
        if getattr(model.config, "use_cache", False):
            model.config.use_cache = False  # keys and values are for generating
        self.model = frozen(model, device, dtype)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The model and its processor at `spec.weights`: safetensors, and no code of theirs.

        Raises ArtefactError if they can't be had, lack a weight that is used, or do not give one
        latent an item of the width that the config tells.
        """
        processor = cls.load_processor(spec)
        model, gaps = load_with_gaps(AutoModel, spec, dtype, unused=(POOLER, DECODER))
        pooler = not any("pooler." in name for name in gaps)
        encoder = cls(spec, model, processor, device, dtype, pooler=pooler)
        encoder.try_out()
        return encoder

    @classmethod
    @abstractmethod
    def load_processor(cls, spec: EncoderSpec) -> Any:
        """What prepares the items."""

    @abstractmethod
    def blank(self) -> Any:
        """Some item, to try the encoder with."""

    @abstractmethod
    def give(self, batch: Any, view: str) -> Tensor | Padded:
        """`encode`, of a batch of one item or more and a view that there is."""

    @torch.inference_mode()
    def encode(self, batch: Any, view: str = "pooled") -> Tensor | Padded:
        """float32: `pooled [n, d]`, `layers [n, L, d]`, and what else `spec.views` contains."""
        if view not in self.spec.views:
            raise ConfigError(
                f"{self.spec.name} has no view '{view}'.", f"It has: {', '.join(self.spec.views)}."
            )
        if batch and self.network(view):
            return self.compute(view, **batch)
        if batch:
            return self.give(batch, view)
        one = self.give(self.collate([self.blank()]), view)
        return Padded(one.values[:0], one.mask[:0]) if isinstance(one, Padded) else one[:0]

    def network_of(self, view: str, axes: tuple[int, ...]) -> Network | None:
        """`give` for a view of which all items have one shape, else None."""
        one_shape = kind_of(view) in ("pooled", "layers")
        return Network(_Given(self, view), axes) if one_shape else None

    def try_out(self) -> None:
        """Raise ArtefactError for a model that this plugin can't use."""
        hint = "Its architecture needs a plugin of its own: fusemix new-plugin"
        try:
            found = self.encode([])
            shape = list((found.values if isinstance(found, Padded) else found).shape[1:])
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
            if out_of_memory(error):
                raise
            kind = type(self.model).__name__
            raise ArtefactError(
                f"{self.spec.name} can't be used as it is: {kind}.{self.method} fails with "
                f"{type(error).__name__}: {first_line(error)}",
                hint,
            ) from error
        if len(shape) != 1 or self.spec.dim not in (None, shape[0]):
            raise ArtefactError(
                f"{self.spec.name} gives latents of shape {shape}; its config tells of "
                f"{self.spec.dim or 'one vector per item'}.",
                hint,
            )

    def run(self, inputs: dict[str, Tensor], **options: Any) -> Any:
        """What the model gives for those of the inputs that it takes."""
        method = getattr(self.model, self.method)
        takes = inspect.signature(method).parameters
        placed = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if name in takes
        }
        return method(**placed, **options)

    def features(self, inputs: dict[str, Tensor]) -> Tensor:
        """float32 `[n, d]` of the tower."""
        found = self.run(inputs)
        return (found if isinstance(found, Tensor) else found.pooler_output).float()

    def check(self, items: Sequence[Any], kind: type, what: str) -> None:
        """Raise TypeError unless all items are of `kind`."""
        for item in items:
            if not isinstance(item, kind):
                raise TypeError(f"{self.spec.name} takes {what}, not {type(item).__name__}")


class _Given(nn.Module):
    """A view of a batch's tensors as a module that holds the model."""

    def __init__(self, encoder: HfEncoder, view: str) -> None:
        super().__init__()
        self.model, self.give, self.view = encoder.model, encoder.give, view

    def forward(self, **batch: Tensor) -> Tensor:
        found = self.give(batch, self.view)
        assert isinstance(found, Tensor)  # see `network_of`
        return found


def blocks(output: Any) -> list[Tensor]:
    """The hidden states after each block, the last one with the final norm if there is one."""
    return [*output.hidden_states[1:-1], output.last_hidden_state]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """float32 `[n, d]`, the mean of `[n, T, d]` over where `mask [n, T]` is true."""
    total = values.float().masked_fill(~mask[:, :, None], 0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True)


def padded(values: Tensor, mask: Tensor) -> Padded:
    """float32, zeros where `mask` is false."""
    return Padded(values.float().masked_fill(~mask[:, :, None], 0), mask)
