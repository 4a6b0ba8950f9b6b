"""For each check of readers and of media, one that breaks it."""

import io
import os
import random

import numpy as np
from kit.broken_evaluators import BROKEN as BROKEN
from kit.broken_selectors import breaks

from fusemix_core.data.media import Medium, Shown
from fusemix_core.data.rows import Reader, Row
from fusemix_core.errors import DataError
from fusemix_core.specs import ComponentSpec

for _kind, _target in (
    ("reader", "fusemix_core.data.delimited:DelimitedReader"),
    ("medium", "fusemix_core.data.media.image:ImageMedium"),
):
    _spec = ComponentSpec(kind=_kind, name="other-options", target=_target, options={"dim": 3})
    breaks(_kind, "declared_options")(_spec)
    breaks(_kind, "light_import")(_spec)


class Lines(Reader):
    """A reader that others break: `image<tab>text` in a file `*.lines`."""

    @classmethod
    def sample(cls, folder):
        path = folder / "pairs.lines"
        path.write_text("a.png\ta red car\nb.png\ta blue boat\nc.png\ta green hat\n" * 3)
        return path

    def matches(self, path):
        return path.suffix == ".lines"

    def texts(self, path):
        return path.read_text(errors="replace").splitlines()

    def rows(self, path):
        for number, line in enumerate(self.texts(path), start=1):
            image, tab, text = line.partition("\t")
            if not tab:
                raise DataError("a line has no tab", path=path)
            yield self.row(path, number, {"image": image, "text": text})

    def row(self, path, number, values):
        return Row(str(path), number, values)


@breaks("reader", "is_a_reader")
class Duck:
    sample = classmethod(Lines.sample.__func__)
    matches, rows, texts, row = Lines.matches, Lines.rows, Lines.texts, Lines.row


@breaks("reader", "knows_its_own")
class Greedy(Lines):
    def matches(self, path):
        return True


@breaks("reader", "knows_its_own")
class Shy(Lines):
    def matches(self, path):
        return False


@breaks("reader", "rows")
class Dicts(Lines):
    def row(self, path, number, values):
        return values


@breaks("reader", "rows")
class Unnumbered(Lines):
    def row(self, path, number, values):
        return Row(str(path), 1, values)


@breaks("reader", "values")
class Tuples(Lines):
    def row(self, path, number, values):
        return Row(str(path), number, {name: (value,) for name, value in values.items()})


@breaks("reader", "same_again")
class Shuffled(Lines):
    def texts(self, path):
        lines = super().texts(path)
        random.shuffle(lines)
        return lines


@breaks("reader", "read_twice_at_once")
class Single(Lines):
    def rows(self, path):
        self.left = self.texts(path)
        number = 0
        while self.left:
            number += 1
            yield Row(str(path), number, {"text": self.left.pop(0)})


@breaks("reader", "stops_early")
class Nothing(Lines):
    def rows(self, path):
        return None


@breaks("reader", "leaves_the_source_alone")
class Indexed(Lines):
    def rows(self, path):
        path.with_suffix(".index").write_text("an index")
        yield from super().rows(path)


@breaks("reader", "a_missing_source")
class Hopeful(Lines):
    def matches(self, path):
        return not path.exists() or super().matches(path)


@breaks("reader", "damaged_sources")
class Trusting(Lines):
    def rows(self, path):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            image, text = line.split("\t")
            yield Row(str(path), number, {"image": image, "text": text})


@breaks("reader", "errors_name_the_source")
class Nameless(Lines):
    def rows(self, path):
        for row in Lines().rows(path):
            if not row.values["image"].isprintable():
                raise DataError("a row is unusable")
            yield row

    def texts(self, path):
        return super().texts(path)


@breaks("reader", "surroundings")
class Seeding(Lines):
    def rows(self, path):
        os.environ["LINES"] = str(random.random())
        yield from super().rows(path)


# -- media -----------------------------------------------------------------------------------------


class Signal(Medium):
    """A medium that others break: arrays in `.npy` files."""

    name = "signal"

    def decode(self, value, sample_rate=None):
        if isinstance(value, np.ndarray):
            return value
        try:
            return np.load(io.BytesIO(self.read(value)), allow_pickle=False)
        except (ValueError, EOFError, OSError, SyntaxError) as error:
            raise DataError(f"not an array: {error}") from error

    def pack(self, value):
        buffer = io.BytesIO()
        np.save(buffer, value)
        return buffer.getvalue()

    def samples(self, spec):
        return [np.arange(n, dtype=np.float32) for n in range(1, 9)]


class Note(Medium):
    """An inline medium that others break."""

    name, inline, joined = "note", True, True

    def decode(self, value, sample_rate=None):
        return str(value)

    def cell(self, value):
        if not isinstance(value, dict):
            raise DataError("not a row")
        return " ".join(str(value[name]) for name in sorted(value))

    def cells(self):
        return [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@breaks("medium", "is_a_medium")
class NoName(Signal):
    name = ""


@breaks("medium", "decodes")
class Constant(Signal):
    def decode(self, value, sample_rate=None):
        super().decode(value)
        return np.zeros(3)


@breaks("medium", "packs_without_loss")
class Rounded(Signal):
    def pack(self, value):
        return super().pack(value + 0.25)


@breaks("medium", "paths")
class OnlyBytes(Signal):
    def decode(self, value, sample_rate=None):
        if isinstance(value, str):
            return np.zeros(1)
        return super().decode(value)


@breaks("medium", "missing_files")
class Forgiving(Signal):
    def decode(self, value, sample_rate=None):
        try:
            return super().decode(value)
        except DataError:
            return np.zeros(1)


@breaks("medium", "cells_are_texts")
class Ordered(Note):
    def cell(self, value):
        super().cell(value)
        return " ".join(map(str, value.values()))


@breaks("medium", "other_things_are_refused")
class AnyThing(Note):
    def cell(self, value):
        return str(value)


@breaks("medium", "damaged_values")
class Careless(Signal):
    def decode(self, value, sample_rate=None):
        return np.load(io.BytesIO(self.read(value)), allow_pickle=False)


@breaks("medium", "threads")
class Shared(Signal):
    count = [0]

    def decode(self, value, sample_rate=None):
        self.count[0] += 1
        return super().decode(value) + self.count[0]


@breaks("medium", "shows")
class Hidden(Signal):
    def show(self, described, load):
        load()
        return Shown()


@breaks("medium", "surroundings")
class Noisy(Signal):
    def decode(self, value, sample_rate=None):
        os.environ["SIGNAL"] = str(random.random())
        return super().decode(value)
