"""The adapter `kernel`: similarities to training items, or the latents themselves, and a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusemix_core.adapters.standardised import StandardisedAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter
from fusemix_core.numerics import exact

LINEAR = 0.2
"""The linear part of the kernel, beside a rational quadratic of 1 on the diagonal."""


class KernelAdapter(StandardisedAdapter):
    """z = f(x) W + b, with u the standardised latent (`StandardisedAdapter`) and

        f(x) = u                                                without landmarks
        f(x)_j = 1 / (1 + |u - l_j|²) + linear · u·l_j          with m landmarks l_j, j = 1 … m

    Landmarks are the u of training items, so the map is one of a kernel method: exact if every
    training item is a landmark, Nyström's approximation if only some are (Williams and Seeger,
    2001). The kernel is the rational quadratic, a mixture of Gaussians of all widths, so no width
    has to be chosen, and a linear part, which goes on where an item is far from all landmarks.

    It runs in float32 in any precision: the map of a kernel magnifies rounding.
    """

    def __init__(
        self, dim_in: int, dim_out: int, *, landmarks: int = 0, linear: float = LINEAR
    ) -> None:
        super().__init__(dim_in)
        if landmarks < 0 or linear < 0:
            raise ConfigError(
                f"kernel: landmarks is {landmarks} and linear {linear}; both must be 0 or more."
            )
        self.linear = linear
        self.register_buffer("landmarks", torch.zeros(landmarks, dim_in))
        wide = landmarks or dim_in
        self.weight = nn.Parameter(torch.empty(wide, dim_out))
        self.bias = nn.Parameter(torch.zeros(dim_out))
        if not self.weight.is_meta:  # where it imports torch._dynamo, which takes seconds
            nn.init.normal_(self.weight, std=wide**-0.5)

    @torch.no_grad()
    def prepare(
        self, latents: Tensor, like: StandardisedAdapter | None = None, *, root: bool = True
    ) -> None:
        """Set power, centre and scale, and the landmarks.

        Args:
            latents: of training items, `[n, dim_in]`; the first of them become the landmarks.
            like: where power, centre and scale come from, instead of the latents.
            root: whether the power may be the square root.
        """
        if len(latents) < len(self.landmarks):
            raise ValueError(f"{len(latents)} latents for {len(self.landmarks)} landmarks")
        if like is None:
            super().prepare(latents, root=root)
        else:
            self.standardise_like(like)
        self.landmarks.copy_(self.standard(latents[: len(self.landmarks)]))

    @exact()
    def features(self, latents: Tensor) -> Tensor:
        """f(x), `[n, landmarks or dim_in]`."""
        u = self.standard(latents)
        return kernel(u, self.landmarks, self.linear) if len(self.landmarks) else u

    @exact()
    def forward(self, latents: Tensor) -> Tensor:
        return torch.addmm(self.bias, self.features(latents), self.weight)

    def first(self, count: int) -> KernelAdapter:
        """The same kernel with its first `count` landmarks, without a map yet."""
        landmarks, dim = self.landmarks[:count], self.weight.shape[1]
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and not used
            some = KernelAdapter(
                landmarks.shape[1], dim, landmarks=len(landmarks), linear=self.linear
            )
        some.to(landmarks.device).train(self.training)
        some.standardise_like(self)
        some.landmarks.copy_(landmarks)
        return some

    def start_from(self, closed_form: Adapter) -> None:
        """Become a copy of another kernel adapter, its landmarks included.

        Raises `ConfigError` for a map that this one can't express.
        """
        if not isinstance(closed_form, KernelAdapter):
            raise ConfigError(
                f"A kernel adapter can't start from a {type(closed_form).__name__}.",
                "Start from the aligner 'cca', or leave out the recipe's start.",
            )
        if closed_form.bias.shape != self.bias.shape:
            raise ConfigError(
                f"A kernel adapter of width {len(self.bias)} can't start from a map of width "
                f"{len(closed_form.bias)}.",
                "Leave the recipe's `dim` unset, so that it is taken from the closed-form map.",
            )
        self.options = dict(closed_form.options)
        self.linear, self.plain = closed_form.linear, closed_form.plain
        for name, buffer in closed_form.named_buffers():
            setattr(self, name, buffer.detach().clone())
        self.weight = nn.Parameter(closed_form.weight.detach().clone())
        self.bias = nn.Parameter(closed_form.bias.detach().clone())


def kernel(a: Tensor, b: Tensor, linear: float) -> Tensor:
    """1 / (1 + |a_i - b_j|²) + linear · a_i·b_j, `[n, m]`, of `[n, d]` and `[m, d]`."""
    products = a @ b.T
    squares = a.square().sum(1)[:, None] + b.square().sum(1)
    near = squares.sub_(products, alpha=2).clamp_(min=0).add_(1).reciprocal_()
    return near.add_(products, alpha=linear)
