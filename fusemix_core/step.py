"""A step of training as an objective reads it: each value is made when it is first read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self, TypeVar, overload

import torch
from torch import Tensor, nn

from fusemix_core.adapter import TokenAdapter
from fusemix_core.batch import Batch, sent
from fusemix_core.errors import ContractError
from fusemix_core.gathering import Rows
from fusemix_core.numerics import Precision, at_least_float32
from fusemix_core.padded import Padded, as_tokens

Latents = Tensor | Padded
T = TypeVar("T", covariant=True)


class Modules(Protocol):
    """Modules by name: a mapping, or `Followers`."""

    def __contains__(self, name: object, /) -> bool: ...

    def __getitem__(self, name: str, /) -> nn.Module: ...


class Unpaired(NamedTuple):
    """Items of one modality that no row links."""

    embeddings: Tensor
    """`[u, d]`, with gradient."""
    latents: Latents
    """Those behind the embeddings, `[u, d_m]`."""


class _Declared(cached_property[T]):
    """A property that only an objective with its name in `uses` may read."""

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None:
            instance._check(self.attrname)
        return super().__get__(instance, owner)


class _BatchRows:
    """The facts of rows without any adapter, the same for own rows and for all."""

    def __init__(self, batch: Batch, check: Callable[[str], None]) -> None:
        self._batch, self._check = batch, check
        self._rows_with: dict[tuple[int, ...], Tensor | None] = {}
        self._rows_here: dict[tuple[int, ...], Tensor | None] = {}

    @property
    def links(self) -> Tensor:
        """int64 `[n, S, K]`: the S items that each row was mixed from, -1 where missing."""
        return self._batch.links

    @property
    def links_here(self) -> Tensor:
        """The links on the CPU, whatever the device: reading them makes nobody wait for a GPU."""
        return self._batch.links_here()

    @cached_property
    def present(self) -> Tensor:
        """bool `[n, K]`: whether a row has an embedding in each modality."""
        return self._batch.present()

    def rows_with(self, *modalities: int) -> Tensor | None:
        """The rows that have all of these modalities, by their columns in `links`.

        It is found on the CPU: unlike a mask, it makes nobody wait for a GPU.

        Returns:
            int64 `[t]` in order, on the device of the rows; None if every row has them.

        Example:
            rows = step.rows_with(0, 2)
            x = x if rows is None else x[rows]
        """
        if modalities not in self._rows_with:
            rows = self.rows_with_here(*modalities)
            self._rows_with[modalities] = None if rows is None else sent(rows, self.links.device)
        return self._rows_with[modalities]

    def rows_with_here(self, *modalities: int) -> Tensor | None:
        """`rows_with` on the CPU."""
        if modalities not in self._rows_here:
            has_all = self._present_here[:, modalities].all(dim=1)
            rows = None if has_all.all() else has_all.nonzero()[:, 0]
            self._rows_here[modalities] = rows
        return self._rows_here[modalities]

    @cached_property
    def _present_here(self) -> Tensor:
        return self._batch.present_here()

    @_Declared
    def latents(self) -> Mapping[str, Latents]:
        """Those behind the embeddings, as mixed: modality → `[n, d_m]`, zeros where missing."""
        return _given(self._batch.latents, "latents")

    @_Declared
    def facts(self) -> Mapping[str, Tensor]:
        """Further values of the rows: name → `[n, S, …]`, one for each source."""
        return self._batch.facts

    @_Declared
    def trust(self) -> Tensor:
        """float `[n]`: the least trust of the sources of each row, from 0 to 1."""
        return self._batch.trust()


class OwnRows(_BatchRows):
    """This process's rows of a step: the same properties, made without communication."""

    def __init__(
        self,
        batch: Batch,
        adapters: Mapping[str, nn.Module],
        fixed: Collection[str],
        check: Callable[[str], None],
        given: Mapping[str, Any],
        precision: Precision,
    ) -> None:
        super().__init__(batch, check)
        self.precision = precision
        self._adapters, self._fixed, self._given = adapters, fixed, given
        self.grad = torch.is_grad_enabled()
        """Whether embeddings have gradients, in whatever mode they are first read."""

    @_Declared
    def adapters(self) -> Mapping[str, nn.Module]:
        """Those of all modalities, the fixed ones too."""
        return self._adapters

    @cached_property
    def embeddings(self) -> Mapping[str, Tensor]:
        """modality → `[n, d]` as the adapters give them, not normalised, with gradient."""
        if "embeddings" in self._given:
            return self._given["embeddings"]
        return {m: found[0] for m, found in self._embedded.items()}

    @_Declared
    def tokens(self) -> Mapping[str, Padded]:
        """modality → the projected tokens behind the embeddings, of adapters that have such."""
        if "tokens" in self._given:
            return self._given["tokens"]
        _given(self._batch.latents, "tokens")
        return {m: found[1] for m, found in self._embedded.items() if found[1] is not None}

    @_Declared
    def unpaired(self) -> Mapping[str, Unpaired]:
        """modality → items that no training row links; a modality without any is absent."""
        if "unpaired" in self._given:
            return self._given["unpaired"]
        return {
            m: Unpaired(self._embed(m, self._adapters[m], x)[0], x)
            for m, x in self._batch.unpaired.items()
        }

    def through(self, adapters: Modules) -> Mapping[str, Tensor]:
        """The embeddings of the same rows by other adapters, without gradient.

        A modality that `adapters` lacks goes through the step's own adapter.
        """
        self._check("adapters")
        latents = _given(self._batch.latents, "latents")
        with torch.no_grad(), self.precision.adapters():
            found = {
                m: adapters[m](x) if m in adapters else self._adapters[m](x)
                for m, x in latents.items()
            }
        return {m: at_least_float32(x) for m, x in found.items()}

    @cached_property
    def _embedded(self) -> dict[str, tuple[Tensor, Padded | None]]:
        return {m: self._embed(m, self._adapters[m], x) for m, x in self._batch.latents.items()}

    def _embed(
        self, modality: str, adapter: nn.Module, latents: Latents
    ) -> tuple[Tensor, Padded | None]:
        """(embeddings, projected tokens if there are some), whatever the caller's grad mode."""
        grad = torch.set_grad_enabled(self.grad and modality not in self._fixed)
        with grad, self.precision.adapters():
            if not isinstance(adapter, TokenAdapter):
                return at_least_float32(adapter(latents)), None
            given = as_tokens(latents)
            tokens = adapter.tokens(given)
            pooled = adapter.pool(tokens, given)
            return at_least_float32(pooled), Padded(at_least_float32(tokens.values), tokens.mask)


class Step(_BatchRows):
    """One batch as an objective reads it: the rows of all processes.

    Each property is made when it is first read, once. Embeddings, latents, tokens and `through` are
    then gathered over the processes, with gradient: every process must read them, in the same
    order. An objective that shares the work between processes reads `own` instead.

    Everything but `embeddings`, `links`, `present`, `number` and `progress` must be declared in
    `Objective.uses`. See docs/how-to/components.md for a table of all properties.

    Args:
        batch: the mixed rows of all processes.
        adapters: modality → adapter, the fixed ones too.
        fixed: the modalities whose embeddings get no gradient.
        uses: the names that may be read; None for all.
        reader: who reads, for the error about what is not declared.
        number: how many steps were done before.
        progress: the share of training done, 0 ≤ progress < 1.
        precision: what the adapters run in. Embeddings and tokens are float32 (float64 of
            float64) in any, and losses run in float32.

    Example:
        step = Step.of({"image": x, "text": y}, links)
        loss = InfoNCE()(step)
    """

    def __init__(
        self,
        batch: Batch,
        adapters: Mapping[str, nn.Module],
        *,
        fixed: Collection[str] = (),
        uses: Collection[str] | None = None,
        reader: str = "The objective",
        number: int = 0,
        progress: float = 0.0,
        precision: Precision = Precision(),
        rows: Rows | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        def check(name: str) -> None:
            if uses is not None and name not in uses:
                raise ContractError(
                    reader,
                    f"'{name}' among what it declares in `uses`, in its class and its spec",
                    f"uses = {tuple(uses)}, and it reads `step.{name}`",
                )

        super().__init__(batch, check)
        self.number, self.progress = number, progress
        self.rows = rows or Rows.split(len(batch.links))
        """Which rows each process has."""
        self._of_unpaired = {m: Rows.split(len(x)) for m, x in batch.unpaired.items()}
        self.precision = precision
        unpaired = {m: rows.own for m, rows in self._of_unpaired.items()}
        own = batch.part(self.rows.own, unpaired)
        self.own = OwnRows(own, adapters, fixed, check, given or {}, precision)
        """This process's rows."""

    @classmethod
    def of(
        cls,
        embeddings: Mapping[str, Tensor],
        links: Tensor,
        *,
        latents: Mapping[str, Latents] | None = None,
        tokens: Mapping[str, Padded] | None = None,
        facts: Mapping[str, Tensor] | None = None,
        trust: Tensor | None = None,
        unpaired: Mapping[str, tuple[Tensor, Latents]] | None = None,
        adapters: Mapping[str, nn.Module] | None = None,
        uses: Collection[str] | None = None,
    ) -> Step:
        """A step of given embeddings, for tests and notebooks.

        Args:
            embeddings: modality → `[n, d]`; in several processes, those of this process's rows.
            links: int64 `[n, S, K]`, or `[n, K]` for rows that are not mixed.
            latents, tokens, facts, unpaired, adapters: as the properties.
            trust: float `[n]`.
            uses: the names that may be read; None for all.
        """
        links = links[:, None] if links.ndim == 2 else links
        facts = dict(facts or {})
        if trust is not None:
            facts["trust"] = trust[:, None].expand(-1, links.shape[1])
        rows = Rows.of(len(links), links.device)
        batch = Batch(
            {m: rows.gather(x) for m, x in (latents or {}).items()},
            rows.gather(links),
            {name: rows.gather(x) for name, x in facts.items()},
        )
        given: dict[str, Any] = {"embeddings": embeddings}
        if tokens is not None:
            given["tokens"] = tokens
        given["unpaired"] = {m: Unpaired(*pair) for m, pair in (unpaired or {}).items()}
        return cls(batch, adapters or {}, uses=uses, rows=rows, given=given)

    @property
    def adapters(self) -> Mapping[str, nn.Module]:
        """Those of all modalities, the fixed ones too."""
        return self.own.adapters

    @_Declared
    def latents(self) -> Mapping[str, Latents]:
        """Those behind the embeddings, as mixed: modality → `[n, d_m]`, zeros where missing.

        Gathered over the processes where each has read its own rows only.
        """
        if self._batch.own is None:
            return _given(self._batch.latents, "latents")
        return {m: self.rows.gather(x) for m, x in self.own.latents.items()}

    @cached_property
    def embeddings(self) -> Mapping[str, Tensor]:
        """modality → `[n, d]` as the adapters give them, not normalised, with gradient."""
        with torch.set_grad_enabled(self.own.grad):
            return {m: self.rows.gather(x) for m, x in self.own.embeddings.items()}

    @_Declared
    def tokens(self) -> Mapping[str, Padded]:
        """modality → the projected tokens behind the embeddings, of adapters that have such."""
        with torch.set_grad_enabled(self.own.grad):
            return {m: self.rows.gather(x) for m, x in self.own.tokens.items()}

    @_Declared
    def unpaired(self) -> Mapping[str, Unpaired]:
        """modality → items that no training row links; a modality without any is absent.

        Row i of one modality has nothing to do with row i of another.
        """
        own = self.own.unpaired
        if not self._of_unpaired:
            return own
        with torch.set_grad_enabled(self.own.grad):
            return {
                m: Unpaired(rows.gather(own[m].embeddings), self._batch.unpaired[m])
                for m, rows in self._of_unpaired.items()
            }

    def through(self, adapters: Modules) -> Mapping[str, Tensor]:
        """The embeddings of the same rows by other adapters, without gradient.

        A modality that `adapters` lacks goes through the step's own adapter.
        """
        with torch.no_grad():
            return {m: self.rows.gather(x) for m, x in self.own.through(adapters).items()}


def _given(latents: Mapping[str, Latents], name: str) -> Mapping[str, Latents]:
    if not latents:
        raise ValueError(f"This step has no {name}. Give them: Step.of(…, {name}=…)")
    return latents
