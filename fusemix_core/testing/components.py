"""What the checks of all components share: how a component is found, and how it is declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from fusemix_core.config import Part
from fusemix_core.data.facts import Fact
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import USES, ComponentSpec
from fusemix_core.testing.suite import Suite, expect
from fusemix_core.testing.watch import Watch
from fusemix_core.testing.worker import heavy, imported_by_listing

Subject = str | ComponentSpec | Callable[..., Any]
"""A component to check: a registered name, a spec, or a class (or whatever else makes one)."""


@dataclass
class ComponentCase:
    """A component to check: `make` constructs it with its options; `target` is its class.

    spec: what is registered, if anything. plugin: the module that lists it, or "". options: those
    that `make` gives. facts: what an objective that uses facts is given.
    """

    name: str
    make: Callable[..., Any]
    target: Any
    spec: ComponentSpec | None = None
    plugin: str = ""
    registry: Registry = field(default_factory=lambda: registry)
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Fact] = field(default_factory=dict)


def find(
    kind: str,
    subject: Subject,
    options: Mapping[str, Any] | None = None,
    registry: Registry = registry,
) -> ComponentCase:
    """The case of a component of a kind. Raises for names and options that are not registered."""
    options = dict(options or {})
    if isinstance(subject, str):
        subject = registry.check(kind, Part(subject, options))
    spec: ComponentSpec | None = None
    if isinstance(subject, ComponentSpec):
        spec, target = subject, registry.target_of(subject)
    else:
        target = subject
    name = spec.name if spec else getattr(target, "__name__", repr(target))

    def make(*args: Any) -> Any:
        return target(*args, **options)

    return ComponentCase(
        name, make, target, spec, _plugin_module(spec, registry), registry, options
    )


def _plugin_module(spec: ComponentSpec | None, registry: Registry) -> str:
    registry.load()
    listed = f"{spec.kind} {spec.name}" if spec else ""
    package = spec.target.partition(".")[0] if spec else ""
    modules = (p.module.partition(":")[0] for p in registry.plugins if listed in p.components)
    return next((m for m in modules if m.partition(".")[0] == package), "")


def add_declaration_checks(suite: Suite) -> None:
    """Give a suite the checks of how a component is declared and listed."""

    @suite.check(when=lambda case: case.spec is not None)
    def declared_options(case: ComponentCase) -> None:
        """The spec lists every keyword option of the target with its default."""
        parameters = inspect.signature(case.target).parameters.values()
        found = {p.name: p.default for p in parameters if p.default is not p.empty}
        assert case.spec is not None
        declared = dict(case.spec.options)
        expect(declared == found, f"the spec says {declared}, the constructor {found}")

    if suite.kind in USES:

        @suite.check()
        def declared_uses(case: ComponentCase) -> None:
            """`uses` has names of `USES` only; the spec has the same, and says what it wraps."""
            own = set(getattr(case.target, "uses", ()))
            unknown = own - set(USES[suite.kind])
            expect(not unknown, f"it can't use {', '.join(unknown)}: {', '.join(USES[suite.kind])}")
            if case.spec is None:
                return
            declared = set(case.spec.uses)
            expect(own == declared, f"the spec says {sorted(declared)}, the class {sorted(own)}")
            if suite.kind in ("adapter", "fuser"):
                return
            known = set(case.registry.uses(suite.kind, Part(case.spec.name, case.options)))
            built = set(getattr(case.make(), "uses", ()))
            expect(
                built == known,
                f"built, it uses {sorted(built)}; its spec, with what that wraps, {sorted(known)}",
            )

    @suite.check(when=lambda case: bool(case.plugin))
    def light_import(case: ComponentCase) -> None:
        """Listing the plugin's components imports neither torch nor any other heavy package."""
        assert case.spec is not None  # which the plugin has
        found = heavy(imported_by_listing(case.plugin, "", ""), case.spec.requires)
        expect(not found, f"listing {case.plugin} imports {', '.join(found)}")


@contextmanager
def seed(number: int) -> Iterator[None]:
    """torch's global generator seeded inside, restored after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        yield


def expect_nothing_changed(use: Callable[[], Any]) -> None:
    """Fail if `use` changes random states, torch's settings, the environment or logging."""
    with Watch()("importing"):  # what libraries do when first imported is not its doing
        use()
    watch = Watch()
    with watch("using it"):
        use()
    changes = [change for kind in watch.changes.values() for change in kind]
    expect(not changes, "; ".join(changes))
