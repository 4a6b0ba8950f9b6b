"""The class that generators subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.padded import Padded
from fusemix_core.specs import GeneratorSpec

Score = Callable[[Tensor], Tensor]
"""How well each image fits: float `[n, 3, h, w]` in 0 to 1 → `[n]`, larger is better, with a
gradient. Row i is compared with condition i."""


class Generator(ABC):
    """A frozen model that makes items from a condition. Item i depends on row i only.

    A subclass sets `spec` (on the class, when it is one generator) and implements `load` and
    `generate`. Its condition is a latent of the registered encoder that `spec.space` names. Any
    modality that is aligned to that encoder (`fusemix align … --fixed`) can condition it.

    Example:
        class Field(Generator):
            spec = GeneratorSpec(name="field", target="my:Field", space="minilm", dim=384, size=32)

            @classmethod
            def load(cls, spec, device, dtype):
                return cls()

            def generate(self, condition, *, seeds, negative=None, size=32):
                self.check(condition)
                shades = condition[:, :3].sigmoid().mul(255).byte().tolist()
                return [Image.new("RGB", (size, size), tuple(shade)) for shade in shades]
    """

    spec: GeneratorSpec

    @classmethod
    @abstractmethod
    def load(cls, spec: GeneratorSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The generator that `spec` describes, frozen, in eval mode, on `device` in `dtype`.

        Weights are opened as safetensors, from the pinned revision or a local path. Nothing that a
        file names is imported or run.

        Raises:
            ArtefactError: The weights are missing, damaged or of another kind.
        """

    @classmethod
    def tiny(cls, spec: GeneratorSpec) -> Self:
        """A random miniature that behaves like the real one and needs no download."""
        raise NotImplementedError(f"{cls.__name__} has no miniature")

    @abstractmethod
    def generate(
        self,
        condition: Tensor | Padded,
        *,
        seeds: Sequence[int],
        negative: Tensor | Padded | None = None,
        **options: Any,
    ) -> list[Any]:
        """One item per row.

        Item i depends on row i, `seeds[i]` and the options only: on a CPU the same ones give the
        same bits, and a row gives the same item, within 1e-4 of its range, whatever else is in the
        batch. Draw noise by one `torch.Generator` per row.

        Args:
            condition: `[n, d]`; of tokens `[n, T, d]` or `Padded`. Rows of length 1, or as the
                encoder gives them (`spec.norm`).
            seeds: One per row.
            negative: What to keep away from, of the same form, if the user says it. None: the
                condition "nothing" (`null`).
            **options: Those of `spec.options` that the user set, `size` (pixels a side) among them
                if the generator draws several. A generator with the condition `guidance` is also
                given `score` (see `Score`), by which it steers.

        Returns:
            Items as `spec.makes` has them: PIL images in RGB.

        Raises:
            ConfigError: The condition has another width, or an option a value that can't be used.
        """

    def null(self, count: int) -> Tensor:
        """The condition "nothing", `[count, d]`, as it was in training: zeros by default."""
        if self.spec.dim is None:
            raise NotImplementedError(f"{type(self).__name__} sets neither spec.dim nor `null`")
        return torch.zeros(count, self.spec.dim)

    def bank(self) -> Tensor | None:
        """Conditions that it was trained on, `[m, d]`, such as those of all names that it knows.

        The correction `bank` projects on them. None by default: the fused model's own are used.
        """
        return None

    def check(self, condition: Tensor | Padded) -> None:
        """Raise `ConfigError` for a condition of another width, before anything heavy runs."""
        values = condition.values if isinstance(condition, Padded) else condition
        wanted = self.spec.dim
        if wanted is not None and values.shape[-1] != wanted:
            raise ConfigError(
                f"The generator '{self.spec.name}' takes conditions of width {wanted}; these are "
                f"{list(values.shape)}.",
                f"They are latents of the encoder '{self.spec.space}', view '{self.spec.view}'.",
            )
