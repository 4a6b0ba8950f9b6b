"""Cross-domain similarity local scaling: cosine without the advantage of hubs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.batch import sent
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Scorer
from fusemix_core.samples import even_sample

_ROWS = 4096
"""Rows compared with a bank at a time: the cosines held are at most `[4096, bank_size]`."""


class CSLSScorer(Scorer):
    """`2 cos(q, g) - r(q) - r(g)` (Conneau et al., 2018, https://arxiv.org/abs/1710.04087).

    r(q) is the mean cosine of a query to its `neighbours` nearest training embeddings of the target
    modality, r(g) that of a gallery item to its nearest training embeddings of the query modality.
    An item that is near to everything (a hub) has a large r, and is scored down. The paper takes
    neighbours among the items that are searched; here they come from the training embeddings only,
    so a score depends on no other query and on no other item of the gallery.

    Where a modality has more than `bank_size` training embeddings, one of each of `bank_size` equal
    stretches of them is kept, drawn by a fixed seed. A larger bank ranks better, at `2 d` bytes a
    row in the saved model. Banks are float16; sums are float32.
    """

    def __init__(self, neighbours: int = 10, bank_size: int = 4096) -> None:
        if neighbours < 1 or bank_size < 1:
            raise ConfigError(
                f"scorer csls: neighbours={neighbours} and bank_size={bank_size} must be 1 or more."
            )
        self.options = {"neighbours": neighbours, "bank_size": bank_size}
        self.neighbours = neighbours
        self.bank_size = bank_size
        self._banks: dict[str, Tensor] = {}
        self._there: dict[tuple[str, torch.device], tuple[Tensor, Tensor]] = {}

    def fit(self, train: Mapping[str, Tensor]) -> None:
        """Keep banks of the unit-norm training embeddings, modality → `[n, d]`, n at least 1."""
        self._banks = self._sampled(train)

    def extend(self, train: Mapping[str, Tensor]) -> None:
        """Add banks of further modalities; a score needs those of its own two only."""
        self._banks = {**self._sampled(train), **self._banks}

    def _sampled(self, train: Mapping[str, Tensor]) -> dict[str, Tensor]:
        empty = [modality for modality, rows in train.items() if len(rows) == 0]
        if empty:
            raise ConfigError(
                f"csls has no training embeddings of {', '.join(empty)}.",
                "Score with cosine: --set scorer=cosine",
            )
        return {
            modality: rows[even_sample(len(rows), self.bank_size).to(rows.device)]
            .detach()
            .to("cpu", torch.float16)
            for modality, rows in train.items()
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """`bank.<modality>` → float16 `[b, d]`, on the CPU."""
        return {f"bank.{modality}": bank for modality, bank in self._banks.items()}

    @tensors.setter
    def tensors(self, value: Mapping[str, Tensor]) -> None:
        for name, bank in value.items():
            if not name.startswith("bank.") or bank.dtype != torch.float16 or bank.dim() != 2:
                raise ValueError(f"csls contains float16 banks [b, d], not {name}: {bank.dtype}")
            if not len(bank):
                raise ValueError(f"{name} is empty")
        self._banks = {name.removeprefix("bank."): bank for name, bank in value.items()}

    def score(self, queries: Tensor, gallery: Tensor, query: str, target: str) -> Tensor:
        """Scores `[n, m]` of unit-norm queries `[n, d]` and gallery `[m, d]`, in -4 … 4."""
        return self.prepare(gallery, query, target)(queries)

    def prepare(self, gallery: Tensor, query: str, target: str) -> Callable[[Tensor], Tensor]:
        """`score` against a fixed gallery, as a function of the queries `[n, d]`.

        Compares the gallery with its bank once: a search of many queries, or of queries in chunks,
        should take this way.
        """
        gallery = gallery.float()
        of_gallery = self._nearness(gallery, query)  # [m]

        def score(queries: Tensor) -> Tensor:
            queries = queries.float()
            of_queries = self._nearness(queries, target)  # [n]
            scores = (queries @ gallery.T).mul_(2)  # [n, m]
            return scores.sub_(of_queries[:, None]).sub_(of_gallery)

        return score

    def lift(self, rows: Tensor, modality: str, against: Sequence[str], gallery: bool) -> Tensor:
        """Rows with a column per modality in `against`, float32 `[n, d + len(against)]`.

        A gallery item g becomes `[g, -r(g)/2, …]`, one column per query modality; a query q
        becomes `[q, 1]`, with 1 in the column of its modality and 0 in the others. Their inner
        product is half of the score plus r(q), which is the same for all items of the gallery.

        Raises:
            ConfigError: there is no bank of a modality in `against`, or a query is of another one.
        """
        rows = rows.float()
        if gallery:
            added = [self._nearness(rows, query) / -2 for query in against]
            return torch.cat([rows, *(column[:, None] for column in added)], dim=1)
        if modality not in against:
            raise ConfigError(
                f"The index has no column for queries of {modality}.",
                f"It serves queries of {', '.join(against)}. Build it again for more.",
            )
        added = rows.new_zeros(rows.shape[0], len(against))
        added[:, list(against).index(modality)] = 1
        return torch.cat([rows, added], dim=1)

    def mapped(self, basis: Tensor) -> CSLSScorer:
        """The scorer of mapped embeddings, with its banks mapped likewise."""
        found = CSLSScorer(self.neighbours, self.bank_size)
        found._banks = {
            modality: normalize(bank.float() @ basis.to(bank.device), dim=1).half()
            for modality, bank in self._banks.items()
        }
        return found

    def _nearness(self, rows: Tensor, modality: str) -> Tensor:
        """The mean cosine `[n]` of rows `[n, d]` to their nearest in the bank of `modality`."""
        if modality not in self._banks:
            raise ConfigError(
                f"csls has no bank of {modality} embeddings.",
                f"It has: {', '.join(self._banks) or 'none, as it was not fitted'}.",
            )
        bank = self._bank(modality, rows.device)
        k = min(self.neighbours, len(bank))
        # An exported network takes any number of rows, which can't be split into so many each.
        split = [rows] if torch.compiler.is_compiling() else rows.split(_ROWS)
        return torch.cat([(p @ bank.T).topk(k, dim=1).values.mean(dim=1) for p in split])

    def _bank(self, modality: str, device: torch.device) -> Tensor:
        """The bank in float32. On an accelerator it stays there, for the tiles that come."""
        bank = self._banks[modality]
        if device.type == "cpu":
            return bank.float()
        held = self._there.get((modality, device))
        if held is None or held[0] is not bank:
            held = self._there[modality, device] = bank, sent(bank, device).float()
        return held[1]
