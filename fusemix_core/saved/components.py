"""Adapters and scorers to and from their saved form: a registered name, options and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from fusemix_core.adapters.embedding import width_of
from fusemix_core.config import Part
from fusemix_core.errors import (
    ArtefactError,
    ConfigError,
    ContractError,
    MissingDependencyError,
    PluginError,
    UnknownNameError,
)
from fusemix_core.interfaces import Adapter, Scorer, input_of
from fusemix_core.registry import USER, Registry
from fusemix_core.saved.folder import check_digest, check_tensors, read_tensors
from fusemix_core.saved.schema import SavedConfig, SavedPart, describe

_SPARE = 1000
"""Parameters that adapters may have beyond two for each saved tensor: shared or left out."""

# -- to the saved form ---------------------------------------------------------------------------


def part_of(kind: str, component: Any, given: Part | None, registry: Registry) -> SavedPart:
    """The name, options and distribution by which a component can be built again.

    Without a `given` part the name is that under which its class is registered, and the options are
    its attribute `options`, or none. Raises `ConfigError` for a class that nobody registered.
    """
    if given is not None:
        spec = registry.check(kind, given)
        options = given.options
    else:
        spec = _registered(kind, type(component), registry)
        options = getattr(component, "options", {})
    dists = [dist for dist, known in registry.all_components(kind) if known is spec]
    dist = dists[0] if dists and dists[0] != USER else ""
    return SavedPart(spec.name, dict(options), dist)


def _registered(kind: str, target: type, registry: Registry) -> Any:
    """The spec of a component class; by its path where possible, which imports no plugin."""
    path = f"{target.__module__}:{target.__qualname__}"
    specs = [spec for _, spec in registry.all_components(kind)]
    for spec in specs:
        if spec.target == path:
            return spec
    for spec in specs:
        if registry.target_of(spec) is target:
            return spec
    raise ConfigError(
        f"{target.__name__} is not registered as {kind}, so a saved model can't name it.",
        f"registry.add_component('{kind}', 'a-name', {target.__name__})",
    )


def check_rebuilt(
    adapter: Adapter, saved: SavedPart, dim_in: int, dim: int, registry: Registry
) -> None:
    """Raise `ContractError` unless name, options and weights give the same adapter again.

    So that nothing is saved which loads as something else: an option left out that has no weights,
    such as the kind of activation, would not show otherwise.
    """
    component = f"adapter '{saved.name}' with options {dict(saved.options)}"
    state = tensors_of(adapter)
    rebuilt = _construct("adapter", Part(saved.name, saved.options), registry, dim_in, dim)
    forms = {key: describe(value) for key, value in tensors_of(rebuilt).items()}
    if forms != {key: describe(value) for key, value in state.items()}:
        raise ContractError(component, "the tensors of the fitted adapter when rebuilt", "others")
    rebuilt.load_state_dict(state)
    device = next((value.device for value in adapter.state_dict().values()), torch.device("cpu"))
    rows = torch.randn(4, dim_in, generator=torch.Generator().manual_seed(0)).to(device)
    rows = input_of(adapter, rows)
    with torch.no_grad():
        fitted, again = adapter(rows), rebuilt.to(device).eval()(rows)
    if not torch.allclose(fitted, again, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise ContractError(component, "the fitted adapter's embeddings when rebuilt", "others")


def tensors_of(adapter: Adapter) -> dict[str, Tensor]:
    """The state of an adapter on the CPU, each tensor with its own memory, as safetensors asks."""
    state = adapter.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ContractError(type(adapter).__name__, "tensors only in its state", f"'{key}'")
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()}


# -- from the saved form -------------------------------------------------------------------------


def load_components(
    folder: Path, config: SavedConfig, registry: Registry
) -> tuple[dict[str, Adapter], Scorer]:
    """The adapters and the scorer of a saved model, after every check on names and tensors."""
    tensors = read_tensors(folder)
    expected = {f"scorer.{name}": form for name, form in config.scorer.tensors.items()}
    with _at_most(_SPARE + 2 * len(tensors)):
        for m, saved in config.modalities.items():
            forms = _adapter_forms(saved.adapter, saved.encoder.dim, config.dim, registry)
            expected |= {f"adapter.{m}.{key}": form for key, form in forms.items()}
    check_tensors(folder, tensors, expected)
    check_digest(folder, config)

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    adapters = {
        m: _load_adapter(s.adapter, s.encoder.dim, config.dim, under(f"adapter.{m}."), registry)
        for m, s in config.modalities.items()
    }
    return adapters, _load_scorer(config.scorer, under("scorer."), registry)


def _adapter_forms(saved: SavedPart, dim_in: int, dim: int, registry: Registry) -> dict[str, str]:
    """The tensors that an adapter of this form has, by key, as `describe` puts them.

    Built without memory where the adapter allows it: widths and options come from a file that may
    be damaged, and are held against the tensors before anything of their size is allocated.
    """
    part = Part(_name("adapter", saved, registry), saved.options)
    try:
        with torch.device("meta"):
            adapter = _construct("adapter", part, registry, dim_in, dim)
    except ArtefactError:
        raise
    except Exception:  # what is wrong with the saved form, rather than with meta, shows again here
        adapter = _build("adapter", saved, registry, dim_in, dim)
    return {key: describe(value) for key, value in adapter.state_dict().items()}


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Within, modules can't have more parameters than that: a number of blocks in a file that may
    be damaged would else fill the memory with them."""
    left = count

    def take(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ArtefactError("The saved adapters have far more tensors than are saved.")

    handle = register_module_parameter_registration_hook(take)
    try:
        yield
    finally:
        handle.remove()


def _load_adapter(
    saved: SavedPart, dim_in: int, dim: int, state: Mapping[str, Tensor], registry: Registry
) -> Adapter:
    """The adapter of a saved form, with its weights copied from `state`."""
    adapter = _build("adapter", saved, registry, dim_in, dim)
    with _as_artefact_error(f"The saved adapter '{saved.name}' does not work"), torch.no_grad():
        adapter.load_state_dict(state)
        width = width_of(adapter.eval(), dim_in)
        if width != dim:
            raise ValueError(f"it gives embeddings of width {width}, not {dim}")
    return adapter


def _load_scorer(saved: SavedPart, state: Mapping[str, Tensor], registry: Registry) -> Scorer:
    """The scorer of a saved form, with its tensors copied from `state`."""
    scorer = _build("scorer", saved, registry)
    with _as_artefact_error(f"The tensors of scorer '{saved.name}'"):
        scorer.tensors = {name: value.clone() for name, value in state.items()}
    return scorer


def check_scorer(scorer: Scorer, modalities: tuple[str, ...], dim: int) -> None:
    """Raise `ArtefactError` unless the scorer can score each modality against each."""
    rows = torch.zeros(2, dim)
    rows[:, 0] = 1
    name = type(scorer).__name__
    for query, target in product(modalities, repeat=2):
        with _as_artefact_error(f"{name} can't score {query} against {target}"):
            scores = scorer.score(rows, rows[:1], query, target)
        if scores.shape != (2, 1) or not scores.isfinite().all():
            raise ArtefactError(f"{name} gives no finite scores for {query} against {target}.")


def _build(kind: str, saved: SavedPart, registry: Registry, *args: Any) -> Any:
    """A component from its saved form.

    Raises `UnknownNameError` for a name that nothing registered, `MissingDependencyError` for a
    missing package, and `ArtefactError` for anything else that is wrong.
    """
    name = _name(kind, saved, registry)
    with _as_artefact_error(f"The saved {kind} '{saved.name}' can't be built"):
        return _construct(kind, Part(name, saved.options), registry, *args)


def _construct(kind: str, part: Part, registry: Registry, *args: Any) -> Any:
    """`registry.build`, leaving the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        return registry.build(kind, part, *args)


def _name(kind: str, saved: SavedPart, registry: Registry) -> str:
    """What the registry knows the component by."""
    try:
        registry.component(kind, saved.name)
    except UnknownNameError as error:
        hint = f"{error.hint}\n{brought_by(saved)}".strip()
        raise UnknownNameError(error.message, hint) from None
    except PluginError:  # two distributions claim the name: it was saved with one of them
        return f"{saved.dist}/{saved.name}"
    return saved.name


def brought_by(saved: Any) -> str:
    """What to tell where `saved.name` is unknown: who brought it when the model was saved."""
    if not saved.dist:
        return f"It was registered by the code that saved the model: register '{saved.name}' first."
    return f"When the model was saved, the package '{saved.dist}' brought it: install that one."


@contextmanager
def _as_artefact_error(what: str) -> Iterator[None]:
    """Turn what a plugin's code raises on damaged input into an `ArtefactError`."""
    try:
        yield
    except (ArtefactError, MissingDependencyError, PluginError):
        raise
    except Exception as error:
        reason = f"{error}".strip() or type(error).__name__
        raise ArtefactError(
            f"{what}: {reason}",
            "The saved model is damaged, or of another version of the plugin that brings this.",
        ) from error
