"""For each check of generators, one that breaks it; `Field` in `field` is a good one."""

import os
import socket
import warnings
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace

import torch
from field import Field

BROKEN = defaultdict(list)


def breaks(check):
    def add(target):
        BROKEN[check].append(target)
        return target

    return add


def with_spec(**changes):
    return replace(Field.spec, **changes)


breaks("light_import")(Field)  # with a plugin whose listing imports a heavy package


@breaks("declared_spec")
class OtherSpace(Field):
    spec = with_spec(space="no-such-encoder")


@breaks("declared_spec")
class OtherWidth(Field):
    spec = with_spec(dim=7)


@breaks("declared_spec")
class Bare(Field):
    @classmethod
    def load(cls, spec, device, dtype):
        made = cls()
        made.spec = None
        return made

    def check(self, condition):
        pass

    def null(self, count):
        return torch.zeros(count, 12)


@breaks("declared_options")
class OtherOptions(Field):
    spec = with_spec(options={"steps": 4})

    def generate(self, condition, *, seeds, negative=None, size=8):
        return super().generate(condition, seeds=seeds, negative=negative, size=size)


@breaks("declared_options")
class OtherDefault(Field):
    spec = with_spec(options={"guidance": 3.0, "noise": 0.05})


@breaks("one_item_per_row")
class OneForAll(Field):
    def generate(self, condition, **more):
        return super().generate(condition, **more)[:1]


@breaks("one_item_per_row")
class Grey(Field):
    def generate(self, condition, **more):
        return [image.convert("L") for image in super().generate(condition, **more)]


@breaks("same_seed_same_bits")
class Counts(Field):
    drawn = 0

    def generate(self, condition, *, seeds, **more):
        Counts.drawn += 1
        return super().generate(condition, seeds=[s + 100 * self.drawn for s in seeds], **more)


@breaks("made_again")
class OtherEachTime(Field):
    made = 0

    @classmethod
    def load(cls, spec, device, dtype):
        cls.made += 1
        other = super().load(spec, device, dtype)
        other.number = cls.made
        return other

    def generate(self, condition, **more):
        return super().generate(condition * self.number, **more)


@breaks("row_independence")
class ByBatch(Field):
    def generate(self, condition, **more):
        return super().generate(condition - condition.mean(dim=0), **more)


@breaks("row_independence")
class OneNoise(Field):
    """Noise by the first seed, for all rows."""

    def generate(self, condition, *, seeds, **more):
        return super().generate(condition, seeds=seeds[:1] * len(seeds), **more)


@breaks("another_condition_another_item")
class Deaf(Field):
    def generate(self, condition, **more):
        self.check(condition)
        return super().generate(torch.ones_like(condition), **more)


@breaks("condition_untouched")
class InPlace(Field):
    def generate(self, condition, **more):
        return super().generate(condition.mul_(0.5), **more)


@breaks("null_condition")
class NarrowNull(Field):
    def null(self, count):
        return torch.zeros(count, 5)

    def generate(self, condition, *, negative=None, **more):
        return super().generate(condition, negative=torch.zeros_like(condition), **more)


@breaks("negative_condition")
class OtherNull(Field):
    def generate(self, condition, *, negative=None, **more):
        away = torch.ones_like(condition) if negative is None else negative
        return super().generate(condition, negative=away, guidance=2.0, **more)


@breaks("wrong_width")
class AnyWidth(Field):
    def check(self, condition):
        pass

    def generate(self, condition, *, negative=None, **more):
        return super().generate(condition, negative=torch.zeros_like(condition), **more)


@breaks("bank_fits")
class NarrowBank(Field):
    def bank(self):
        return torch.ones(2, 5)


@breaks("bank_fits")
class EmptyRow(Field):
    def bank(self):
        return torch.zeros(1, 12)


@breaks("no_network")
class AsksTheHub(Field):
    def generate(self, condition, **more):
        with suppress(OSError), socket.socket() as asked:
            asked.connect(("127.0.0.1", 9))
        return super().generate(condition, **more)


@breaks("random_state")
class GlobalNoise(Field):
    def generate(self, condition, **more):
        torch.rand(1)
        return super().generate(condition, **more)


@breaks("torch_settings")
class Threads(Field):
    def generate(self, condition, **more):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().generate(condition, **more)


@breaks("environment")
class Environment(Field):
    def generate(self, condition, **more):
        os.environ["FIELD"] = "drawn"
        return super().generate(condition, **more)


@breaks("logging")
class Silences(Field):
    def generate(self, condition, **more):
        warnings.simplefilter("ignore")
        return super().generate(condition, **more)
