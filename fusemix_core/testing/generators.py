"""`check_generator`: whether a generator keeps its contract."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.generation.loading import options_of
from fusemix_core.generation.spaces import space_of
from fusemix_core.interfaces import Generator, Padded
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import GeneratorSpec
from fusemix_core.testing.generator_case import (
    GENERATOR,
    ROWS,
    GeneratorCase,
    Subject,
    apart_by,
    prepare,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import CheckFailed, expect
from fusemix_core.testing.watch import ENVIRONMENT, LOGGING, RANDOM, TORCH
from fusemix_core.testing.worker import heavy, imported_by_listing


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
    expect(len(made) == ROWS, f"{len(made)} items for {ROWS} rows")
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
    for i in range(ROWS):
        [alone] = case.arrays(case.condition[i : i + 1], [i])
        apart = apart_by(alone, case.first[i])
        expect(
            apart <= case.tolerance,
            f"in a batch of one, item {i} differs by {apart:.2g}",
        )
    order = torch.arange(ROWS).flip(0)
    turned = case.arrays(case.condition[order], order.tolist())
    for i, array in zip(order.tolist(), turned, strict=True):
        apart = apart_by(array, case.first[i])
        expect(apart <= case.tolerance, f"in another order, item {i} differs by {apart:.2g}")


@GENERATOR.check(when=lambda case: case.spec.condition != "guidance")
def another_condition_another_item(case: GeneratorCase) -> None:
    """Other conditions give other items from the same seed."""
    same = case.arrays(seeds=[0] * ROWS)
    for i in range(1, ROWS):
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
    null = case.generator.null(ROWS)
    wanted = list(case.condition[:].shape) if isinstance(case.condition, Tensor) else []
    expect(list(null.shape) == wanted, f"null is {list(null.shape)}, conditions are {wanted}")
    expect(null.isfinite().all(), "null contains NaN or infinity")
    expect(len(case.made(null)) == ROWS, "null gives no items")


@GENERATOR.check(when=lambda case: case.spec.condition == "pooled")
def negative_condition(case: GeneratorCase) -> None:
    """A negative condition is taken, and without one it is `null`."""
    expect(len(case.made(negative=case.condition[torch.arange(ROWS).flip(0)])) == ROWS, "none")
    given = case.arrays(negative=case.generator.null(ROWS))
    apart = max(map(apart_by, given, case.first))
    expect(apart <= case.tolerance, f"given null as negative, items differ by {apart:.2g}")


@GENERATOR.check(when=lambda case: case.spec.dim is not None and case.spec.condition == "pooled")
def wrong_width(case: GeneratorCase) -> None:
    """A condition of another width is a ConfigError."""
    assert case.spec.dim is not None
    try:
        case.made(torch.zeros(ROWS, case.spec.dim + 1))
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
