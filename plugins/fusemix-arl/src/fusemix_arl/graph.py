"""Entities as vectors: TransE, and attention along the edges of a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, elu, leaky_relu, normalize

from fusemix_arl.knowledge import Triples

NEGATIVES = 8
"""Wrong triples for each true one."""


class TransE(nn.Module):
    """Entities and relations as vectors, such that head + relation is near tail (Bordes et al.,
    2013).

    Args:
        entities, relations: how many there are.
        width: of a vector.
        norm: 1 or 2, of the distance.
        unit: whether vectors are normalised before.
        margin: by which wrong triples shall be farther than true ones.

    Example:
        TransE(9, 3, 64).distance(head, relation, tail)
    """

    def __init__(
        self,
        entities: int,
        relations: int,
        width: int,
        *,
        norm: int = 1,
        unit: bool = True,
        margin: float = 5.0,
    ) -> None:
        super().__init__()
        self.entity = nn.Parameter(torch.empty(entities, width))
        self.relation = nn.Parameter(torch.empty(relations, width))
        for table in (self.entity, self.relation):
            nn.init.xavier_uniform_(table)
        self.norm, self.unit, self.margin = norm, unit, margin

    def distance(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """|head + relation - tail| `[n]` of numbers int64 `[n]`."""
        parts = (self.entity[head], self.relation[relation], self.entity[tail])
        h, r, t = (normalize(x, dim=1) if self.unit else x for x in parts)
        return (h + r - t).norm(p=self.norm, dim=1)

    def loss(self, distance: Tensor, positives: int) -> Tensor:
        """The mean hinge of true triples against their wrong ones.

        Args:
            distance: `[positives · (1 + k)]`: of the true triples, then of the first wrong one of
                each, then of the second, and on.
            positives: how many are true.
        """
        true, wrong = distance[:positives], distance[positives:].view(-1, positives)
        return (true - wrong).clamp(min=-self.margin).mean() + self.margin


def fitted(
    triples: Triples,
    width: int,
    *,
    epochs: int = 100,
    margin: float = 5.0,
    seed: int = 0,
    lr: float = 0.02,
    batch: int = 4_096,
) -> TransE:
    """TransE fitted to triples. In wrong ones the head or the tail is another entity.

    Draws come from a generator of its own: the same triples and seed give the same vectors.
    """
    draw = torch.Generator().manual_seed(seed)
    ids = torch.from_numpy(triples.ids)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = TransE(len(triples.entities), len(triples.relations), width, margin=margin)
        search = torch.optim.Adam(model.parameters(), lr=lr)
        for _ in range(epochs):
            for rows in torch.randperm(len(ids), generator=draw).split(batch):
                every = _with_negatives(ids[rows], len(triples.entities), draw)
                search.zero_grad()
                model.loss(model.distance(*every.T), len(rows)).backward()
                search.step()
    return model.requires_grad_(False)


def _with_negatives(true: Tensor, entities: int, draw: torch.Generator) -> Tensor:
    """int64 `[(1 + NEGATIVES) · n, 3]`: true triples, then wrong ones made of each."""
    wrong = true.repeat(NEGATIVES, 1)
    side = torch.randint(0, 2, (len(wrong),), generator=draw) * 2
    wrong[torch.arange(len(wrong)), side] = torch.randint(
        0, entities, (len(wrong),), generator=draw
    )
    return torch.cat([true, wrong])


class GraphAttention(nn.Module):
    """Each node is a weighted sum of itself and of the nodes with an edge to it (GAT, Velickovic et
    al., 2018).

    Args:
        given: width of a node.
        width: of a head.
        heads: side by side in the result.
    """

    def __init__(self, given: int, width: int, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads * width, given))
        self.att_source = nn.Parameter(torch.empty(heads, width))
        self.att_target = nn.Parameter(torch.empty(heads, width))
        self.bias = nn.Parameter(torch.zeros(heads * width))
        for table in (self.weight, self.att_source, self.att_target):
            nn.init.xavier_uniform_(table)

    def forward(self, nodes: Tensor, edges: Tensor, drop: float = 0.0) -> Tensor:
        """`[n, heads · width]`.

        Args:
            nodes: `[n, given]`.
            edges: int64 `[2, E]`, source and target, with one edge from each node to itself.
            drop: how often a weight is left out.
        """
        z = (nodes @ self.weight.T).unflatten(1, self.att_source.shape)
        source, target = edges
        score = (z * self.att_source).sum(dim=2)[source] + (z * self.att_target).sum(dim=2)[target]
        score = leaky_relu(score, 0.2)  # [E, heads]
        most = score.new_full((len(z), score.shape[1]), -torch.inf)
        index = target[:, None].expand_as(score)
        most = most.scatter_reduce(0, index, score.detach(), "amax")
        share = (score - most[target]).exp()
        share = share / share.new_zeros(most.shape).index_add(0, target, share)[target]
        share = dropout(share, drop, training=drop > 0)
        found = torch.zeros_like(z).index_add(0, target, share[..., None] * z[source])
        return found.flatten(1) + self.bias


class EntityGraph(nn.Module):
    """A table of entities, normalised, then two layers of attention along the edges.

    Args:
        table: `[n, width]`, the vectors to start from, which are trained.
        edges: int64 `[2, E]`; each node also has one to itself. None for no attention.
        heads, head_width: of the first layer.
        drop: of nodes before each layer, and of attention, in training.
    """

    def __init__(
        self,
        table: Tensor,
        edges: Tensor | None,
        heads: int = 8,
        head_width: int = 64,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        width = table.shape[1]
        self.entity = nn.Parameter(table.clone())
        self.norm = nn.LayerNorm(width)
        self.drop = drop
        self.edges: Tensor | None
        if edges is not None:
            own = torch.arange(len(table)).expand(2, -1)
            edges = torch.cat([edges[:, edges[0] != edges[1]], own], dim=1)
        self.register_buffer("edges", edges, persistent=False)
        self.layers = nn.ModuleList(
            []
            if edges is None
            else [
                GraphAttention(width, head_width, heads),
                GraphAttention(heads * head_width, width, 1),
            ]
        )

    def forward(self) -> Tensor:
        """All entities, `[n, width]`."""
        x, drop = self.norm(self.entity), self.drop if self.training else 0.0
        for number, layer in enumerate(self.layers):
            x = elu(x) if number else x
            x = layer(dropout(x, drop, training=drop > 0), self.edges, drop)
        return x
