"""Indexes and exporters that break a check; see `broken_components`."""

import itertools
import os
import pickle

import numpy as np
import torch
from kit.broken_components import breaks
from kit.broken_tasks import BROKEN as BROKEN

from fusemix_core.exports.base import Exporter
from fusemix_core.search.flat import FlatIndex
from fusemix_core.specs import ComponentSpec
from fusemix_core.vectors import Index

_TARGET = "fusemix_core.search.flat:FlatIndex"
_SPEC = ComponentSpec(kind="index", name="other-options", target=_TARGET, options={"block": 3})
breaks("index", "declared_options")(_SPEC)
breaks("index", "light_import")(_SPEC)


class Flat(FlatIndex):
    """A good one, that others break."""

    def __init__(self, folder, dim, kept):
        super().__init__(folder, dim, kept, segment=64)


@breaks("index", "is_an_index")
class Duck:
    """All that an index has, without being one."""

    def __init__(self, folder, dim, kept):
        self.__dict__["index"] = Flat(folder, dim, kept)

    def __getattr__(self, name):
        return getattr(self.__dict__["index"], name)


@breaks("index", "finds_the_best")
class ByTheEmbeddingOnly(Flat):
    """The further columns make no difference."""

    def search(self, queries, count, allowed=None):
        queries = queries.copy()
        queries[:, self.dim :] = 0
        return super().search(queries, count, allowed)


@breaks("index", "finds_the_best")
class TheFirst(Flat):
    def search(self, queries, count, allowed=None):
        allowed = np.ones(len(self), bool) if allowed is None else allowed.copy()
        allowed[200:] = False
        return super().search(queries, count, allowed)


@breaks("index", "largest_first")
class SmallestFirst(Flat):
    def search(self, *args):
        keys, products = super().search(*args)
        return keys[:, ::-1], products[:, ::-1]


@breaks("index", "shapes")
class Padded(Flat):
    """Always as many as asked for."""

    def search(self, queries, count, allowed=None):
        keys, products = super().search(queries, count, allowed)
        more = count - keys.shape[1]
        wide = ((0, 0), (0, more))
        return np.pad(keys, (*wide, (0, 0))), np.pad(products, wide)


@breaks("index", "shapes")
class InDouble(Flat):
    def search(self, *args):
        keys, products = super().search(*args)
        return keys, products.astype(np.float64)


@breaks("index", "empty")
class NothingIsAFault(Flat):
    def check(self):
        return super().check() if len(self) else ["It is empty."]


@breaks("index", "only_allowed")
class Afterwards(Flat):
    """What is not allowed is left out of what was found: fewer are left."""

    def search(self, queries, count, allowed=None):
        if allowed is None or not allowed.any():
            return super().search(queries, count, allowed)
        places = np.flatnonzero(allowed)
        keys, products = super().search(queries, count)
        fits = np.isin(keys[..., 0], self.keys[places, 0])
        least = fits.sum(axis=1).min()
        order = np.argsort(~fits, axis=1, kind="stable")[:, :least]
        chosen = np.take_along_axis(products, order, axis=1)
        return np.take_along_axis(keys, order[..., None], axis=1), chosen


@breaks("index", "only_allowed")
class IgnoresIt(Flat):
    def search(self, queries, count, allowed=None):
        return super().search(queries, count)


@breaks("index", "rows_as_given")
class Normalised(Flat):
    def rows(self, keys):
        rows = super().rows(keys)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@breaks("index", "rows_as_given")
class Zeros(Flat):
    """For keys that it does not have."""

    def rows(self, keys):
        try:
            return super().rows(keys)
        except KeyError:
            return np.zeros((len(keys), self.dim + self.kept), np.float32)


@breaks("index", "added_once")
class TheLast(Flat):
    """What is added again replaces what was there."""

    def add(self, keys, rows):
        self.remove(keys)
        super().add(keys, rows)


@breaks("index", "removed")
class CountsWhatWasAsked(Flat):
    def remove(self, keys):
        super().remove(keys)
        return len(keys)


@breaks("index", "removed")
class Remembers(Flat):
    """What was removed once is not added again."""

    gone = np.zeros((0, 2), np.uint64)

    def remove(self, keys):
        self.gone = np.concatenate([self.gone, keys])
        return super().remove(keys)

    def add(self, keys, rows):
        new = ~np.isin(keys[:, 0], self.gone[:, 0])
        super().add(keys[new], rows[new])


@breaks("index", "compacted")
class LosesTheLast(Flat):
    def compact(self):
        self.remove(self.keys[-1:])
        super().compact()


@breaks("index", "reopened")
class InMemory(Flat):
    """What is removed is noted by this process only."""

    removed = np.zeros((0, 2), np.uint64)

    @property
    def keys(self):
        whole = super().keys
        return whole[~np.isin(whole[:, 0], self.removed[:, 0])]

    def remove(self, keys):
        before = len(self.keys)
        self.removed = np.concatenate([self.removed, keys])
        return before - len(self.keys)


@breaks("index", "refreshed")
class AlwaysNew(Flat):
    def search(self, *args):
        self.refresh()
        return super().search(*args)

    @property
    def keys(self):
        self.refresh()
        return super().keys


@breaks("index", "refreshed")
class NeverNew(Flat):
    started = False

    def refresh(self):
        if not self.started:
            super().refresh()
        self.started = True


class Memory(Index):
    """Plain arrays in one file, written in place; much is missing."""

    def __init__(self, folder, dim, kept):
        super().__init__(folder, dim, kept)
        self.path = self.folder / "vectors.npz"
        self.refresh()

    def refresh(self):
        self.own = {"keys": np.zeros((0, 2), np.uint64),
                    "rows": np.zeros((0, self.dim + self.kept), np.float32)}  # fmt: skip
        if self.path.exists():
            with np.load(self.path) as found:
                self.own = dict(found)

    @property
    def keys(self):
        return self.own["keys"]

    def write(self, **arrays):
        self.own = arrays
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.path, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())

    def add(self, keys, rows):
        new = ~np.isin(keys[:, 0], self.keys[:, 0])
        self.write(keys=np.concatenate([self.keys, keys[new]]),
                   rows=np.concatenate([self.own["rows"], rows[new]]))  # fmt: skip

    def remove(self, keys):
        gone = np.isin(self.keys[:, 0], keys[:, 0])
        if gone.any():
            self.write(keys=self.keys[~gone], rows=self.own["rows"][~gone])
        return int(gone.sum())

    def search(self, queries, count, allowed=None):
        products = queries @ self.own["rows"].T
        if allowed is not None:
            products[:, ~allowed] = -np.inf
        usable = len(self) if allowed is None else int(allowed.sum())
        order = np.argsort(-products, axis=1, kind="stable")[:, : min(count, usable)]
        return self.keys[order], np.take_along_axis(products, order, axis=1)

    def rows(self, keys):
        return self.own["rows"][[int(np.flatnonzero(self.keys[:, 0] == k)[0]) for k in keys[:, 0]]]

    def check(self):
        return []

    def repair(self):
        return []

    def compact(self):
        pass


breaks("index", "goes_on")(Memory)
breaks("index", "damage")(Memory)
breaks("index", "refuses")(Memory)
breaks("index", "unwritable")(Memory)


@breaks("index", "stopped")
class TwoFiles(Memory):
    """Rows in one file, keys in another: a process that is stopped between leaves one of them."""

    def write(self, **arrays):
        self.own = arrays
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, values in arrays.items():
            with open(self.folder / f"{name}.npy", "wb") as file:
                np.save(file, values)
                file.flush()
                os.fsync(file.fileno())

    def refresh(self):
        super().refresh()
        for path in self.folder.glob("*.npy"):
            self.own[path.stem] = np.load(path)


@breaks("index", "deterministic")
class Forgets(Flat):
    """What it found last it does not find again."""

    calls = itertools.count()

    def search(self, queries, count, allowed=None):
        keys, products = super().search(queries, count, allowed)
        if next(self.calls) % 2:
            keys = np.roll(keys, 1, axis=1)
        return keys, products


@breaks("index", "input_unmodified")
class InPlace(Flat):
    def add(self, keys, rows):
        rows *= 2
        super().add(keys, rows / 2)


@breaks("index", "input_unmodified")
class AllowsMore(Flat):
    def search(self, queries, count, allowed=None):
        found = super().search(queries, count, allowed)
        if allowed is not None:
            allowed[:1] = False
        return found


@breaks("index", "surroundings")
class Seeds(Flat):
    def settle(self):
        np.random.seed(0)


# -- exporters -------------------------------------------------------------------------------------

_TARGET = "fusemix_core.exports.tables:ParquetExporter"
_SPEC = ComponentSpec(kind="exporter", name="other", target=_TARGET, options={"form": 3})
breaks("exporter", "declared_options")(_SPEC)
breaks("exporter", "declared_uses")(_SPEC)
breaks("exporter", "light_import")(_SPEC)


class About(Exporter):
    """A good one, that others break."""

    def write(self, source, folder):
        (folder / "about.txt").write_text("\n".join(source.model.modalities))
        return ["Read {out}/about.txt"]


@breaks("exporter", "is_an_exporter")
class NotAnExporter:
    uses = ()

    def check(self, source):
        pass

    def write(self, source, folder):
        return About().write(source, folder)


@breaks("exporter", "takes_the_model")
class RefusesLate(About):
    def write(self, source, folder):
        raise ValueError("no such adapter")


@breaks("exporter", "writes_files")
class Empty(About):
    def write(self, source, folder):
        (folder / "about.txt").touch()
        return ["Read {out}/about.txt"]


@breaks("exporter", "writes_files")
class Beside(About):
    def write(self, source, folder):
        folder.with_suffix(".log").write_text("done")
        return super().write(source, folder)


@breaks("exporter", "says_how_to_use_them")
class OtherName(About):
    def write(self, source, folder):
        super().write(source, folder)
        return ["Read {out}/README.md"]


@breaks("exporter", "says_how_to_use_them")
class NamesTheFolder(About):
    def write(self, source, folder):
        super().write(source, folder)
        return [f"Read {folder}/about.txt", "in {out}"]


@breaks("exporter", "says_how_to_use_them")
class OneText(About):
    def write(self, source, folder):
        return super().write(source, folder)[0]


@breaks("exporter", "can_be_moved")
class WholePaths(About):
    def write(self, source, folder):
        (folder / "config.json").write_text(f'{{"about": "{folder}/about.txt"}}')
        return super().write(source, folder)


@breaks("exporter", "no_code")
class Pickled(About):
    def write(self, source, folder):
        (folder / "model.pkl").write_bytes(pickle.dumps(source.model.modalities))
        return super().write(source, folder)


@breaks("exporter", "no_code")
class TorchFile(About):
    def write(self, source, folder):
        torch.save(source.model.adapters["text"].state_dict(), folder / "text.bin")
        return super().write(source, folder)


@breaks("exporter", "deterministic")
class Counts(About):
    number = itertools.count(9)

    def write(self, source, folder):
        (folder / "number.txt").write_text("x" * next(self.number))
        return super().write(source, folder)


@breaks("exporter", "model_unmodified")
class InHalf(About):
    def write(self, source, folder):
        for adapter in source.model.adapters.values():
            adapter.half().float()
        return super().write(source, folder)


@breaks("exporter", "model_unmodified")
class LeftInTraining(About):
    def write(self, source, folder):
        source.model.adapters["image"].train()
        return super().write(source, folder)


@breaks("exporter", "surroundings")
class SeedsTorch(About):
    def write(self, source, folder):
        torch.manual_seed(source.seed)
        return super().write(source, folder)
