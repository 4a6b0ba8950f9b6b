"""`check_generator`: whether a generator keeps its contract."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.generation.loading import options_of
from fusemix_core.generation.spaces import space_of
from fusemix_core.interfaces import Generator, Padded
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import GeneratorSpec
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import CheckFailed, Suite, expect
from fusemix_core.testing.watch import ENVIRONMENT, LOGGING, RANDOM, TORCH, Watch
from fusemix_core.testing.worker import heavy, imported_by_listing

GENERATOR = Suite("generator", least=15)
Subject = str | GeneratorSpec | type[Generator] | Callable[[], Generator]
"""A generator to check: a name as on the command line, a spec, a class that has one, or a function
that makes one."""

_ROWS, _TOKENS, _WIDTH = 3, 5, 16
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
        if bank is not None and len(bank) >= _ROWS:
            return bank[:: len(bank) // _ROWS][:_ROWS].float()
        draw = torch.Generator().manual_seed(0)
        width = self.spec.dim or _WIDTH
        if self.spec.condition == "tokens":
            length = _tokens(self.generator)
            values = torch.randn(_ROWS, length, width, generator=draw)
            return Padded(values, torch.ones(_ROWS, length, dtype=torch.bool))
        rows = normalize(torch.randn(_ROWS, width, generator=draw), dim=1)
        return rows if self.spec.norm == "unit" else rows * width**0.5

    def made(
        self,
        condition: Tensor | Padded | None = None,
        seeds: Sequence[int] = range(_ROWS),
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


def check_generator(
    subject: Subject,
    *,
    tiny: bool = False,
    device: str | torch.device = "cpu",
    tolerance: float = 1 / 255 + 1e-4,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a generator: the real one, loaded on `device`, or its `tiny` miniature.

    Args:
        subject: A name, a spec, a class with a `spec`, or a function that makes a generator.
        tiny: Check its random miniature, which needs no weights.
        device: Where to load it. Bits can only be compared on a CPU.
        tolerance: The largest difference, relative to the range of a pixel, that another batch may
            make: one step of 255 by default.
        options: Those with which it draws; by default 4 `steps`, if it has that option.
        expected_failures: name of a check → why it fails.

    Errors of the checks are results; those of finding and loading the generator are raised.

    Example:
        check_generator("emoji").raise_if_failed()
    """
    GENERATOR.expected(expected_failures)
    case = prepare(
        subject, tiny=tiny, device=device, tolerance=tolerance, options=options, registry=registry
    )
    return GENERATOR.run(case.spec.name, case, expected_failures)


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
            target = subject if isinstance(subject, type) else registry.target_of(spec)
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


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two images, as a share of the range of a pixel."""
    if a.shape != b.shape:
        return 1.0
    return float(np.abs(a.astype(float) - b.astype(float)).max()) / 255 if a.size else 0.0


# -- what it is and makes --------------------------------------------------------------------------


@GENERATOR.check()
def declared_spec(case: GeneratorCase) -> None:
    """It carries its spec, and its space is a registered encoder with that view and width."""
    spec = getattr(case.generator, "spec", None)
    expect(isinstance(spec, GeneratorSpec), "the generator has no attribute `spec`")
    expect(isinstance(case.generator, Generator), "it is not a subclass of Generator")
    if case.spec.condition == "guidance":
        return
    try:
        space_of(case.spec, case.registry)
    except FusemixError as error:
        raise CheckFailed(error.message) from error


@GENERATOR.check()
def declared_options(case: GeneratorCase) -> None:
    """Every option of the spec is one of `generate`, and its default is the same."""
    parameters = inspect.signature(case.generator.generate).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option, default in options_of(case.spec).items():
        expect(option in parameters, f"generate has no option '{option}'")
        own = parameters[option].default
        expect(own in (default, None), f"{option} is {default!r} in the spec, {own!r} in generate")


@GENERATOR.check()
def one_item_per_row(case: GeneratorCase) -> None:
    """It makes one item per row: an RGB image of the declared size, or a text."""
    made = case.made()
    expect(isinstance(made, list), f"generate gave a {type(made).__name__}, not a list")
    expect(len(made) == _ROWS, f"{len(made)} items for {_ROWS} rows")
    if case.spec.makes != "image":
        return
    for item in made:
        mode, size = getattr(item, "mode", None), getattr(item, "size", None)
        expect(mode == "RGB", f"it makes {type(item).__name__} of mode {mode}, not RGB images")
        wanted = case.spec.size
        expect(wanted is None or size == (wanted, wanted), f"an image is {size}; size is {wanted}")


# -- what an item depends on -----------------------------------------------------------------------


@GENERATOR.check()
def same_seed_same_bits(case: GeneratorCase) -> None:
    """The same condition, seed and options give the same bits."""
    again = case.arrays()
    expect(all(map(np.array_equal, case.first, again)), "drawn again, an item differs")


@GENERATOR.check()
def made_again(case: GeneratorCase) -> None:
    """Made again, the generator draws the same."""
    again = case.arrays(generator=case.make())
    expect(all(map(np.array_equal, case.first, again)), "made again, it draws something else")


@GENERATOR.check()
def row_independence(case: GeneratorCase) -> None:
    """A row gives the same item in any batch and any order."""
    for i in range(_ROWS):
        [alone] = case.arrays(case.condition[i : i + 1], [i])
        apart = _apart(alone, case.first[i])
        expect(
            apart <= case.tolerance,
            f"in a batch of one, item {i} differs by {apart:.2g}",
        )
    order = torch.arange(_ROWS).flip(0)
    turned = case.arrays(case.condition[order], order.tolist())
    for i, array in zip(order.tolist(), turned, strict=True):
        apart = _apart(array, case.first[i])
        expect(apart <= case.tolerance, f"in another order, item {i} differs by {apart:.2g}")


@GENERATOR.check(when=lambda case: case.spec.condition != "guidance")
def another_condition_another_item(case: GeneratorCase) -> None:
    """Other conditions give other items from the same seed."""
    same = case.arrays(seeds=[0] * _ROWS)
    for i in range(1, _ROWS):
        expect(not np.array_equal(same[0], same[i]), f"rows 0 and {i} give the same item")


@GENERATOR.check()
def condition_untouched(case: GeneratorCase) -> None:
    """The condition is as before."""
    given = case.condition
    values = given.values if isinstance(given, Padded) else given
    before = values.clone()
    case.made()
    expect(torch.equal(values, before), "generate changed its condition")


# -- nothing, and what is wrong --------------------------------------------------------------------


@GENERATOR.check(when=lambda case: case.spec.condition == "pooled")
def null_condition(case: GeneratorCase) -> None:
    """The condition "nothing" is finite, of the same width, and gives items."""
    null = case.generator.null(_ROWS)
    wanted = list(case.condition[:].shape) if isinstance(case.condition, Tensor) else []
    expect(list(null.shape) == wanted, f"null is {list(null.shape)}, conditions are {wanted}")
    expect(null.isfinite().all(), "null contains NaN or infinity")
    expect(len(case.made(null)) == _ROWS, "null gives no items")


@GENERATOR.check(when=lambda case: case.spec.condition == "pooled")
def negative_condition(case: GeneratorCase) -> None:
    """A negative condition is taken, and without one it is `null`."""
    expect(len(case.made(negative=case.condition[torch.arange(_ROWS).flip(0)])) == _ROWS, "none")
    given = case.arrays(negative=case.generator.null(_ROWS))
    apart = max(map(_apart, given, case.first))
    expect(apart <= case.tolerance, f"given null as negative, items differ by {apart:.2g}")


@GENERATOR.check(when=lambda case: case.spec.dim is not None and case.spec.condition == "pooled")
def wrong_width(case: GeneratorCase) -> None:
    """A condition of another width is a ConfigError."""
    assert case.spec.dim is not None
    try:
        case.made(torch.zeros(_ROWS, case.spec.dim + 1))
    except ConfigError:
        return
    except Exception as error:
        raise CheckFailed(f"{type(error).__name__}, not ConfigError: {error}") from error
    raise CheckFailed("it was taken")


@GENERATOR.check()
def bank_fits(case: GeneratorCase) -> None:
    """Its bank, if it brings one, has finite conditions of its width, none zero."""
    bank = case.generator.bank()
    if bank is None:
        return
    wanted = case.spec.dim
    expect(bank.ndim == 2 and wanted in (None, bank.shape[1]), f"bank is {list(bank.shape)}")
    expect(bank.isfinite().all(), "bank contains NaN or infinity")
    expect((bank.float().norm(dim=1) > 0).all(), "a row of the bank is zero")


# -- the process around it -------------------------------------------------------------------------


@GENERATOR.check(when=lambda case: bool(case.plugin))
def light_import(case: GeneratorCase) -> None:
    """Listing the plugin's generators imports neither torch nor any other heavy package."""
    found = heavy(imported_by_listing(case.plugin, "", ""), case.spec.requires)
    expect(not found, f"listing {case.plugin} imports {', '.join(found)}")


@GENERATOR.check()
def no_network(case: GeneratorCase) -> None:
    """Drawing reaches for no network."""
    with _no_network() as asked:
        case.made()
    expect(not asked, f"it connects to {asked[:1]}")


@contextmanager
def _no_network() -> Iterator[list[Any]]:
    """Inside, no connection can be made; gives the addresses that were tried."""
    asked: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        asked.append(address)
        raise OSError("no network while a generator is checked")

    kept = socket.socket.connect
    socket.socket.connect = refuse  # type: ignore[assignment,method-assign]
    try:
        yield asked
    finally:
        socket.socket.connect = kept  # type: ignore[method-assign]


def _unchanged(case: GeneratorCase, kind: str) -> None:
    """Fail if making the generator, or drawing, changed anything of this kind."""
    expect(not case.changes[kind], "; ".join(case.changes[kind]))


@GENERATOR.check()
def random_state(case: GeneratorCase) -> None:
    """The global generators of torch, numpy and random are as before."""
    _unchanged(case, RANDOM)


@GENERATOR.check()
def torch_settings(case: GeneratorCase) -> None:
    """torch's default dtype and device, threads and modes are as before."""
    _unchanged(case, TORCH)


@GENERATOR.check()
def environment(case: GeneratorCase) -> None:
    """The environment's variables, the working folder and sys.path are as before."""
    _unchanged(case, ENVIRONMENT)


@GENERATOR.check()
def logging(case: GeneratorCase) -> None:
    """Loggers and warnings filters are as before."""
    _unchanged(case, LOGGING)
