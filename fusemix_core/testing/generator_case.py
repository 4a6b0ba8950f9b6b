"""The suite of checks of generators, and what they look at: a generator with its conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Generator, Padded
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import GeneratorSpec
from fusemix_core.testing.suite import Suite
from fusemix_core.testing.watch import Watch

GENERATOR = Suite("generator", least=15)
Subject = str | GeneratorSpec | type[Generator] | Callable[[], Generator]
"""A generator to check: a name as on the command line, a spec, a class that has one, or a function
that makes one."""

ROWS, _TOKENS, _WIDTH = 3, 5, 16
_STEPS = 4
"""Of the sampler, if it has an option `steps`: pictures need not be good."""


@dataclass
class GeneratorCase:
    """A generator and what it is checked with.

    make: gives the generator again. options: those with which it draws. plugin: the module that
    lists it, or "".
    """

    spec: GeneratorSpec
    generator: Generator
    make: Callable[[], Generator]
    tolerance: float
    options: dict[str, Any] = field(default_factory=dict)
    registry: Registry = field(default_factory=lambda: registry)
    plugin: str = ""

    @cached_property
    def condition(self) -> Tensor | Padded:
        """Conditions that differ: of its bank if it brings one, else random."""
        bank = self.generator.bank()
        if bank is not None and len(bank) >= ROWS:
            return bank[:: len(bank) // ROWS][:ROWS].float()
        draw = torch.Generator().manual_seed(0)
        width = self.spec.dim or _WIDTH
        if self.spec.condition == "tokens":
            length = _tokens(self.generator)
            values = torch.randn(ROWS, length, width, generator=draw)
            return Padded(values, torch.ones(ROWS, length, dtype=torch.bool))
        rows = normalize(torch.randn(ROWS, width, generator=draw), dim=1)
        return rows if self.spec.norm == "unit" else rows * width**0.5

    def made(
        self,
        condition: Tensor | Padded | None = None,
        seeds: Sequence[int] = range(ROWS),
        generator: Generator | None = None,
        **more: Any,
    ) -> list[Any]:
        """The items that it makes."""
        given = {**self.options, **more}
        if self.spec.condition == "guidance":
            given["score"] = lambda images: images.mean(dim=(1, 2, 3))
        rows = self.condition if condition is None else condition
        return (generator or self.generator).generate(rows, seeds=list(seeds), **given)

    def arrays(self, *args: Any, **more: Any) -> list[np.ndarray]:
        """The same as arrays of numbers, texts as their bytes."""
        return [_array(item) for item in self.made(*args, **more)]

    @cached_property
    def first(self) -> list[np.ndarray]:
        """The items of `condition`, made in one batch."""
        return self.arrays()

    @cached_property
    def changes(self) -> Mapping[str, Sequence[str]]:
        """Changes of the process by making it again and drawing, by kind."""
        watch = Watch()
        with watch("making the generator"):
            generator = self.make()
        with watch("generate"):
            self.made(generator=generator)
        return watch.changes


def prepare(
    subject: Subject,
    *,
    tiny: bool = False,
    device: str | torch.device = "cpu",
    tolerance: float = 1 / 255 + 1e-4,
    options: Mapping[str, Any] | None = None,
    registry: Registry = registry,
) -> GeneratorCase:
    """The case that the checks look at; arguments as of `check_generator`."""
    spec = registry.generator(subject) if isinstance(subject, str) else subject
    spec = spec if isinstance(spec, GeneratorSpec) else getattr(spec, "spec", None)
    place = torch.device("cpu") if tiny else resolve_device(device)

    def make() -> Generator:
        if isinstance(spec, GeneratorSpec):
            own = isinstance(subject, type)
            target: Any = subject if own else registry.target_of(spec)
            return _miniature(target, spec) if tiny else target.load(spec, place, torch.float32)
        assert callable(subject)
        return subject()

    if isinstance(spec, GeneratorSpec):
        spec.check_requirements()
    elif not callable(subject):
        raise ConfigError(
            f"{subject!r} can't be checked as a generator.",
            "Give a name, a GeneratorSpec, a Generator class with a `spec`, or what makes one.",
        )
    with Watch()("importing"):  # what libraries do when first imported is not its doing
        generator = make()
    found = generator.spec if tiny or spec is None else spec
    few = {"steps": _STEPS} if "steps" in found.options else {}
    plugin = _plugin_module(found, registry)
    given = few if options is None else dict(options)
    return GeneratorCase(found, generator, make, tolerance, given, registry, plugin)


def _miniature(target: type[Generator], spec: GeneratorSpec) -> Generator:
    try:
        return target.tiny(spec)
    except NotImplementedError as error:
        raise ConfigError(
            f"{spec.name} has no miniature.", "Check the generator itself, or implement `tiny`."
        ) from error


def _plugin_module(spec: GeneratorSpec, registry: Registry) -> str:
    """The module by which its package is listed; "" for a class outside any plugin."""
    package = spec.target.partition(":")[0].partition(".")[0]
    registry.load()
    modules = [p.module.partition(":")[0] for p in registry.plugins]
    return next((m for m in modules if m.partition(".")[0] == package), "")


def _tokens(generator: Generator) -> int:
    """How many tokens a condition has: as many as "nothing" if that has tokens."""
    known = None if generator.spec.dim is None else generator.null(1)
    return known.shape[1] if known is not None and known.ndim == 3 else _TOKENS


def _array(item: Any) -> np.ndarray:
    if isinstance(item, str):
        return np.frombuffer(item.encode(), np.uint8)
    return np.asarray(item)


def apart_by(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two images, as a share of the range of a pixel."""
    if a.shape != b.shape:
        return 1.0
    return float(np.abs(a.astype(float) - b.astype(float)).max()) / 255 if a.size else 0.0
