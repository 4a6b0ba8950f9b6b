"""The projectors of Freeze-Align, each `[…, dim_in]` to `[…, dim_out]`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu

from fusemix_core.errors import ConfigError


class Patch(nn.Module):
    """y = linear(h) + fc2(gelu(fc1(h))), h = dropout(LayerNorm(x))."""

    def __init__(self, dim_in: int, dim_out: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim_in)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim_in, dim_out)
        self.fc1 = nn.Linear(dim_in, dim_out)
        self.fc2 = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.norm(x))
        return self.linear(h) + self.fc2(gelu(self.fc1(h)))


class MLP(nn.Module):
    """y = LayerNorm(dropout(fc2(gelu(p))) + p), p = fc1(x)."""

    def __init__(self, dim_in: int, dim_out: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim_in, dim_out)
        self.fc2 = nn.Linear(dim_out, dim_out)
        self.dropout = nn.Dropout(dropout)
        self.out_norm = nn.LayerNorm(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        p = self.fc1(x)
        return self.out_norm(self.dropout(self.fc2(gelu(p))) + p)


PROJECTORS = {"patch": Patch, "mlp": MLP}


def projector(name: str, dim_in: int, dim_out: int, dropout: float) -> nn.Module:
    """The projector of that name. Raises `ConfigError` for an identity between two widths."""
    if name != "identity":
        return PROJECTORS[name](dim_in, dim_out, dropout)
    if dim_in != dim_out:
        raise ConfigError(
            f"An identity can't bring {dim_in} numbers to {dim_out}.",
            f"Take a projector ({', '.join(PROJECTORS)}), or dim={dim_in}.",
        )
    return nn.Identity()
