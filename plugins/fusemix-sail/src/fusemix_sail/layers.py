"""The adapters `sail` and `sharelock`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import gelu, relu6

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter

LAYERS = ("linear", "glu", "mlp")
_MOST = 1000.0
"""Both branches of the gate are clamped to ± this."""


class AlignmentLayer(Adapter):
    """SAIL's alignment layer (arXiv 2412.04616): LayerNorm, then one of three maps.

        linear   out(x)
        glu      out(relu6(gate(x)) ∘ value(x)), both of width_factor · dim_in, clamped to ± 1000
        mlp      fc2(gelu(fc1(x))), the hidden width 4 · dim_in

    Xavier-uniform weights, zero offsets. Raises `ConfigError` for an unknown layer.
    """

    def __init__(
        self, dim_in: int, dim_out: int, *, layer: str = "glu", width_factor: int = 8
    ) -> None:
        super().__init__()
        if layer not in LAYERS or width_factor < 1:
            raise ConfigError(
                f"A sail adapter can't have layer='{layer}' and width_factor={width_factor}.",
                f"A layer is one of {', '.join(LAYERS)}; width_factor is 1 or more.",
            )
        self.layer = layer
        self.norm = nn.LayerNorm(dim_in)
        if layer == "mlp":
            self.fc1, self.fc2 = nn.Linear(dim_in, 4 * dim_in), nn.Linear(4 * dim_in, dim_out)
        elif layer == "glu":
            wide = width_factor * dim_in
            self.gate, self.value = nn.Linear(dim_in, wide), nn.Linear(dim_in, wide)
            self.out = nn.Linear(wide, dim_out)
        else:
            self.out = nn.Linear(dim_in, dim_out)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.norm(latents)
        if self.layer == "mlp":
            return self.fc2(gelu(self.fc1(x)))
        if self.layer == "glu":
            gate, value = (f(x).clamp(-_MOST, _MOST) for f in (self.gate, self.value))
            x = relu6(gate) * value
        return self.out(x)


class ShareLockHead(Adapter):
    """ShareLock's head on texts (arXiv 2410.07173), as SAIL's code has it: linear, batch norm, relu
    and dropout, three times, then linear. Raises `ConfigError` for options out of range."""

    def __init__(
        self, dim_in: int, dim_out: int, *, hidden: int = 4096, dropout: float = 0.2
    ) -> None:
        super().__init__()
        if hidden < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"A sharelock adapter can't have hidden={hidden} and dropout={dropout}."
            )
        self.dropout = dropout
        for i, width in enumerate((dim_in, hidden, hidden)):
            self.add_module(f"fc{i}", nn.Linear(width, hidden))
            self.add_module(f"bn{i}", nn.BatchNorm1d(hidden))
        self.out = nn.Linear(hidden, dim_out)

    def forward(self, latents: Tensor) -> Tensor:
        x = latents
        for i in range(3):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"fc{i}")(x)).relu()
            x = drop(x, self.dropout, self.training)
        return self.out(x)
