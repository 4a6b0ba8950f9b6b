"""`Collection`: items of one or more modalities, indexed by a fused model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fusemix_core.config import DataConfig, Part, from_dict
from fusemix_core.data.media import medium
from fusemix_core.digests import file_sha256
from fusemix_core.disk import locked
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.latents.runtime import absent
from fusemix_core.latents.stamps import state_of
from fusemix_core.registry import registry
from fusemix_core.search.finder import Finder
from fusemix_core.search.found import Found
from fusemix_core.search.items import ItemTable, Record, as_keys
from fusemix_core.search.network import NEEDED, SUFFIX, Asked, QueryNetwork
from fusemix_core.search.segments import digest_of
from fusemix_core.search.state import MODEL, NAME, State, fault
from fusemix_core.vectors import Index

if TYPE_CHECKING:
    from torch import Tensor

    from fusemix_core.fused import FusedModel
    from fusemix_core.runs.candidates import Reranking
    from fusemix_core.runs.reporter import Reporter
    from fusemix_core.search.overview import Overview
    from fusemix_core.search.reading import Read


class Collection:
    """A collection on disk: items, their vectors, and a copy of the model that made these.

    Threads may share it. Before each search it takes in the updates of other processes.

    Example:
        photos = Collection.create("photos.index", "runs/first", DataConfig(("photos",)))
        found = photos.search(photos.encode("text", "a map"), "text", 5)
        print(found[0].item, found[0].percentile)
    """

    def __init__(self, folder: str | Path, model: FusedModel | None = None) -> None:
        """Use `Collection.open`."""
        self.folder = Path(folder)
        self._model, self._lock = model, RLock()
        self._finder = Finder()
        self._indexes: dict[str, Index] = {}
        self._networks: dict[Path, QueryNetwork] = {}
        self._seen: tuple[int, ...] | None = None
        self._fault = ""
        self._refresh(sound=False)
        if model is not None and self.state.dim != model.dim:
            raise ConfigError(
                f"{folder} has embeddings of width {self.state.dim}, the model {model.dim}.",
                "Open the index with the model it was built with.",
            )

    @classmethod
    def open(cls, folder: str | Path, model: FusedModel | None = None) -> Self:
        """The collection in a folder.

        Args:
            folder: That `create` wrote.
            model: The model of the collection, if it is loaded already. None: load the copy in the
                folder when it is first needed.

        One with damaged parts opens: `check` lists them, `update` mends them, and searching is an
        `ArtefactError`.

        Raises:
            ArtefactError: There is none, or `index.json` itself is damaged.
        """
        return cls(folder, model)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        model: FusedModel | str | Path,
        data: DataConfig,
        to: Sequence[str] = (),
        *,
        backend: Part = Part("flat"),
        reporter: Reporter | None = None,
    ) -> Self:
        """Build a collection. If that is interrupted, the same call goes on. Nothing is written if
        the data can't be read.

        Args:
            folder: A new or empty folder.
            model: A fused model, or the folder of one or of its run.
            data: The items. Relative paths keep their meaning if the working folder changes.
            to: Modalities to search in. Empty: all that the data have.
            backend: The kind of index.
            reporter: Gets progress and notes.

        Raises:
            ConfigError: The folder has something else, or the scorer can't be served by an index.
            DataError: The data can't be read.
        """
        from fusemix_core.runs.models import load_model
        from fusemix_core.runs.reporter import Reporter
        from fusemix_core.search.reading import read_collection
        from fusemix_core.search.updating import begin, begun_in, first_state

        reporter, folder = reporter or Reporter(), Path(folder)
        loaded = load_model(model) if isinstance(model, str | os.PathLike) else model
        registry.check("index", backend)
        state = first_state(loaded, replace(data, base=data.base or os.getcwd()), to, backend)
        begun_in(folder, state)  # refuses a folder before the data are read
        read = read_collection(from_dict(DataConfig, state.data), state.takes, reporter)
        begin(folder, state, loaded)
        made = cls(folder, loaded)
        made._update(reporter, read)
        return made

    # -- what it is ------------------------------------------------------------------------------

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that can be searched."""
        return tuple(m for m in self.state.takes if self.state.counts.get(m))

    @property
    def query_modalities(self) -> tuple[str, ...]:
        """The modalities of queries."""
        return tuple(self.state.asks)

    @property
    def columns(self) -> dict[str, str]:
        """Column of the data → `number` or `text`."""
        return dict(self.state.columns)

    @property
    def model(self) -> FusedModel:
        """The model, loaded when it is first needed."""
        with self._lock:
            if self._model is None:
                from fusemix_core.runs.models import load_model

                self._model = load_model(self.model_folder)
            return self._model

    @property
    def sources(self) -> tuple[str, ...]:
        """The files and folders of the data."""
        return from_dict(DataConfig, self.state.data).located().files

    @property
    def model_folder(self) -> Path:
        """The folder of the collection's copy of the model."""
        return self.folder / MODEL

    def __len__(self) -> int:
        return sum(self.state.counts.values())

    @property
    def len(self) -> int:
        """The number of items of all modalities."""
        return len(self)

    def info(self) -> dict[str, Any]:
        """Facts for people and `--json`."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {
            "folder": str(self.folder),
            "items": dict(self.state.counts),
            "queries": list(self.state.asks),
            "quick": self.state.quick(),
            "columns": self.columns,
            "dim": self.state.dim,
            "scorer": self.state.scorer,
            "index": self.state.backend["name"],
            "data": list(self.sources),
            "updated": self.state.updated,
            "bytes": sum(path.stat().st_size for path in files),
        }

    # -- searching -------------------------------------------------------------------------------

    def encode(self, modality: str, item: Any) -> Tensor:
        """The unit-norm embedding `[d]` of a query: a text, a path, an image, …"""
        return self.model.encode(modality, [item])[0]

    def search(
        self,
        vector: Tensor | np.ndarray,
        modality: str,
        count: int = 10,
        offset: int = 0,
        where: str | None = None,
        target: str | None = None,
        exclude: Iterable[str] = (),
    ) -> list[Found]:
        """The items that score highest, best first: exactly those that `similarity` ranks first.

        Args:
            vector: Unit-norm `[d]`, as `encode` or a row of `vectors`.
            modality: Of the query.
            count: How many.
            offset: How many of the best to pass over.
            where: A condition on the columns: `year > 2020 and kind = 'map'`.
            target: The modality to search in. None: the first that is not the query's.
            exclude: Keys of items to leave out.

        Raises:
            ConfigError: The condition can't be read, or there is no such modality.
        """
        import torch

        self._refresh()
        target = self._target(modality, target)
        query = torch.as_tensor(vector, dtype=torch.float32).reshape(1, -1)
        if query.shape[1] != self.state.dim:
            raise ConfigError(f"The query has {query.shape[1]} numbers, not {self.state.dim}.")
        scorer, dim = self.model.scorer, self.state.dim
        lifted = scorer.lift(query, modality, list(self.state.asks), gallery=False)

        def scores(rows: np.ndarray, target: str) -> np.ndarray:
            gallery = torch.from_numpy(rows[:, :dim])
            return scorer.score(query, gallery, modality, target)[0].numpy()

        places = slice(max(0, offset), max(0, offset) + max(0, count))
        return self._best(lifted.numpy(), scores, modality, target, places, where, set(exclude))

    def ask(
        self,
        modality: str,
        item: Any,
        count: int = 10,
        offset: int = 0,
        where: str | None = None,
        target: str | None = None,
        exclude: Iterable[str] = (),
        reranking: Reranking | None = None,
    ) -> list[Found]:
        """`search` with an item: `search(encode(modality, item), modality, …)`.

        A text is answered by the query network in the folder, if there is one and no model is
        loaded: neither the model nor its encoder nor torch is loaded then.

        Args:
            modality: Of the query.
            item: A text, a path, an image, …
            count, offset, where, target, exclude: As in `search`.
            reranking: Orders the first results anew. Scores stay those of the model.

        Raises:
            DataError: The item can't be decoded.
            ConfigError: The condition can't be read, or there is no such modality.

        Example:
            found = Collection.open("photos.index").ask("text", "a map", 5)
        """
        self._refresh()
        target = self._target(modality, target)
        if reranking is not None:
            places = slice(max(0, offset), max(0, offset) + max(0, count))
            vector = self.encode(modality, item)
            wanted = reranking.wanted(places.stop)
            found = self.search(vector, modality, wanted, 0, where, target, exclude)
            return self.reranked(found, modality, item, reranking)[places]
        asked = self._asked(modality, item) if self._model is None else None
        if asked is None:
            vector = self.encode(modality, item)
            return self.search(vector, modality, count, offset, where, target, exclude)
        places = slice(max(0, offset), max(0, offset) + max(0, count))
        return self._best(asked.lifted, asked.scores, modality, target, places, where, set(exclude))

    def reranked(
        self, found: Sequence[Found], modality: str, item: Any, reranking: Reranking
    ) -> list[Found]:
        """Results of one modality in the order of a re-ranker.

        Args:
            found: Results of `search`, from the first one on.
            modality: Of the query.
            item: The query: a text, a path, an image, …
            reranking: Whose re-ranker belongs to the collection's model.
        """
        if not found:
            return []
        keys = as_keys(bytes.fromhex(one.key) for one in found)
        scores = [one.score or 0.0 for one in found]

        def read(i: int) -> Path | str | bytes:
            return self.media(found[i].key)

        how = modality, item, found[0].modality, keys
        return [found[i] for i in reranking.order(*how, read, scores)]

    def store_tokens(self, reranking: Reranking, reporter: Reporter | None = None) -> int:
        """Put the tokens of all items into the latent store, so that no query waits for them.

        Returns:
            How many items have tokens there.
        """
        from fusemix_core.runs.candidates import store_tokens
        from fusemix_core.runs.reporter import Reporter
        from fusemix_core.search.reading import read_collection

        takes = {m: t for m, t in self.state.takes.items() if m in reranking.reranker.modalities}
        reporter = reporter or Reporter()
        read = read_collection(from_dict(DataConfig, self.state.data), takes, reporter)
        items = read.dataset.items.values()
        return sum(store_tokens(reranking.reranker, one, reporter) for one in items)

    def _asked(self, modality: str, item: Any) -> Asked | None:
        """An item as the query network lifts it; None if there is none that runs here."""
        file = self.state.networks.get(modality, {}).get("file")
        if file is None or absent(*NEEDED):
            return None
        text = medium(self.state.asks[modality]).decode(item)
        path = self.folder / f"{file}{SUFFIX}"
        with self._lock:
            if path not in self._networks:
                if found := fault(path):
                    raise self._damaged(found)
                self._networks[path] = QueryNetwork.open(path)
        try:
            return self._networks[path].ask(text)
        except Exception:  # a runtime of another version may not take the network
            return None

    def _best(
        self,
        lifted: np.ndarray,
        scores: Callable[[np.ndarray, str], np.ndarray],
        query: str,
        target: str,
        places: slice,
        where: str | None,
        exclude: set[str],
    ) -> list[Found]:
        """The items at some places of the ranking, by exact `scores` of rows of a target."""
        index, table = self._index(target), self._table
        records = self._finder.find(index, table, target, lifted, places.stop, where, exclude)
        if not records:
            return []
        found = scores(index.rows(as_keys(one.key for one in records)), target)
        order = np.argsort(-found, kind="stable").tolist()[places]
        return [self._record(table, records[i], float(found[i]), query) for i in order]

    def items(self, keys: Iterable[str]) -> list[Found]:
        """The items of these keys, without scores. Raises KeyError for one that isn't there."""
        self._refresh()
        return [self._record(self._table, one) for one in self._records(keys)]

    def keys(self, modality: str) -> list[str]:
        """The keys, in hex, of all items of a modality."""
        self._refresh()
        return [key.tobytes().hex() for key in self._table.keys(modality)]

    def vectors(self, keys: Iterable[str]) -> Tensor:
        """The unit-norm embeddings of items, float32 `[n, d]`. Raises KeyError."""
        import torch

        self._refresh()
        records = self._records(keys)
        out = np.empty((len(records), self.state.dim), np.float32)
        for modality in {one.modality for one in records}:
            here = [i for i, one in enumerate(records) if one.modality == modality]
            found = self._index(modality).rows(as_keys(records[i].key for i in here))
            out[here] = found[:, : self.state.dim]
        return torch.from_numpy(out)

    def media(self, key: str) -> Path | str | bytes:
        """The content of an item: the path of its file, its text, or its bytes if it is a part of a
        file. A path is checked to be in the folders of the data still.

        Raises:
            KeyError: There is no such item.
            DataError: Its file is gone, or leads out of the data.
        """
        from fusemix_core.search.media import content_of  # reads data of all kinds

        self._refresh()
        outside = bool(self.state.data.get("allow_outside"))
        return content_of(self._records([key])[0], self.state.roots, outside)

    def facets(
        self, column: str, where: str | None = None, modality: str | None = None
    ) -> list[tuple[Any, int]]:
        """(value, how many items have it) of a column, the most frequent first: of all items, or of
        those that pass a condition and are of one modality. Raises `ConfigError`."""
        self._refresh()
        return self._table.facets(column, where, modality)

    @property
    def version(self) -> str:
        """The name of the present state; each update that changes anything gives another."""
        self._refresh()
        return self.state.items

    def overview(self) -> Overview:
        """All items in one order, with their places on a map."""
        from fusemix_core.search.overview import Overview

        self._refresh()
        indexes = {modality: self._index(modality) for modality in self.modalities}
        return Overview(self.state.items, self._table, indexes, self.state.dim)

    def map(self) -> tuple[list[str], np.ndarray]:
        """(keys in hex; float32 `[n, 2]`, the items on the plane of their two main directions)."""
        view = self.overview()
        return view.keys, view.points

    # -- keeping it up ---------------------------------------------------------------------------

    def update(self, reporter: Reporter | None = None) -> dict[str, int]:
        """Read the data again: new items are encoded, lost ones are removed, damaged parts are made
        again. Another process that updates the same collection is waited for.

        Returns:
            `added`, `removed` and `items`: how many there are.

        Raises:
            DataError: The data can't be read, or too many items can't be decoded. The collection
                stays as it was.
        """
        from fusemix_core.runs.reporter import Reporter

        return self._update(reporter or Reporter())

    def check(self) -> list[str]:
        """Read every file whole; a sentence for each fault. Changes nothing."""
        self._refresh(sound=False)
        faults = []
        for path in self.state.files(self.folder):
            if not path.exists() or digest_of(path) != path.stem:
                faults.append(f"{path} is missing, or does not match its checksum.")
        weights = self.folder / MODEL / "model.safetensors"
        if not weights.exists() or file_sha256(weights) != self.state.weights:
            faults.append(f"{weights} is missing, or is not the model of this index.")
        return faults + [fault for m in self.state.takes for fault in self._index(m).check()]

    def compact(self) -> None:
        """Write the vectors anew, without removed ones, in few files."""
        with locked(self.folder):
            self._refresh()
            for modality in self.modalities:
                self._index(modality).compact()
                self._index(modality).settle()

    # -- inside ----------------------------------------------------------------------------------

    def _update(self, reporter: Reporter, read: Read | None = None) -> dict[str, int]:
        """`update`; `read` are the data if they are read already."""
        from fusemix_core.search.updating import update

        with locked(self.folder):
            self._refresh(sound=False)
            indexes = {m: self._index(m) for m in self.state.takes}
            counts = update(self.folder, self.state, self.model, indexes, reporter, read)
        self._refresh()
        return counts

    def _refresh(self, sound: bool = True) -> None:
        """Take in the updates of other processes. sound: raise `ArtefactError` if the table of
        items is damaged."""
        with self._lock:
            seen = state_of(self.folder / NAME) if (self.folder / NAME).exists() else None
            if seen is None or seen != self._seen:
                self.state = State.read(self.folder)
                self._table = self.state.table(self.folder)
                self._fault = fault(self._table.path) if self.state.items else ""
                for index in self._indexes.values():
                    index.refresh()
                self._finder.clear()
                self._seen = seen
            if sound and self._fault:
                raise self._damaged(self._fault)

    def _damaged(self, fault: str) -> ArtefactError:
        return ArtefactError(fault, f"Make it again: fusemix index update {self.folder}")

    def _index(self, modality: str) -> Index:
        with self._lock:
            if modality not in self._indexes:
                folder = self.folder / "vectors" / modality.replace(":", "+")
                part = from_dict(Part, self.state.backend)
                index = registry.build("index", part, folder, self.state.dim, self.state.kept)
                self._indexes[modality] = index
            return self._indexes[modality]

    def _target(self, query: str, target: str | None) -> str:
        if query not in self.state.asks:
            raise ConfigError(
                f"The index takes no queries of '{query}'.",
                f"It takes {', '.join(self.state.asks)}.",
            )
        if target is None:
            others = [m for m in self.modalities if m != query]
            target = next(iter(others or self.modalities), None)
        if target not in self.modalities:
            raise ConfigError(
                f"The index has no items of '{target}'." if target else "The index is empty.",
                f"It has {', '.join(self.modalities) or 'nothing yet: fusemix index update'}.",
            )
        return target

    def _records(self, keys: Iterable[str]) -> list[Record]:
        asked = []
        for key in keys:
            try:
                asked.append(bytes.fromhex(key))
            except ValueError:
                raise KeyError(key) from None
        found = self._table.records(asked)
        return [found[key] for key in asked]

    def _record(
        self, table: ItemTable, one: Record, score: float | None = None, query: str = ""
    ) -> Found:
        share = None if score is None else self.state.percentile(query, one.modality, score)
        described = table.described(one)
        return Found(one.key.hex(), score, one.modality, one.item, described, share)
