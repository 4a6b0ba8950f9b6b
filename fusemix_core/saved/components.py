"""Components to and from their saved form: a registered name, arguments, options and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from fusemix_core.config import Part
from fusemix_core.errors import (
    ArtefactError,
    ContractError,
    MissingDependencyError,
    PluginError,
    UnknownNameError,
)
from fusemix_core.interfaces import Scorer, input_of
from fusemix_core.registry import USER, Registry
from fusemix_core.saved.folder import check_digest, check_tensors, read_tensors
from fusemix_core.saved.schema import SavedConfig, SavedPart, describe, kind_of_part
from fusemix_core.specs import ComponentSpec

SEEN = "seen"
"""What the names of the tensors with keys of training items begin with."""
ROTATION = "rotation"
"""The name of the tensor that orders the dimensions of a shared space."""
_SPARE = 1000
"""Parameters that modules may have beyond two for each saved tensor: shared or left out."""

# -- to the saved form ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """A component, and what it was built from.

    `part` is its registered name and its options; None: its class's registered name, and its
    attribute `options`. `arguments` are what its class is called with before the options.
    """

    component: Any
    arguments: tuple[Any, ...] = ()
    part: Part | None = None

    def saved(self, kind: str, registry: Registry) -> SavedPart:
        """How the component is saved. Raises as `part_of` does."""
        part = part_of(kind, self.component, self.part, registry)
        tensors = {} if isinstance(self.component, nn.Module) else _tensors(self.component)
        forms = {name: describe(tensor) for name, tensor in tensors.items()}
        return replace(part, arguments=self.arguments, tensors=forms)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors to save: a module's state, or what a scorer keeps."""
        if isinstance(self.component, nn.Module):
            return tensors_of(self.component)
        return _tensors(self.component)


def _tensors(component: Any) -> dict[str, Tensor]:
    """Those of a component that is not a module, sorted by name, on the CPU."""
    tensors = getattr(component, "tensors", {})
    return {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}


def part_of(kind: str, component: Any, given: Part | None, registry: Registry) -> SavedPart:
    """The name, options and distribution by which a component can be built again.

    Without a `given` part the name is that under which its class is registered, and the options are
    its attribute `options`, or none. Raises `ConfigError` for a class that nobody registered.
    """
    if given is not None:
        spec = registry.check(kind, given)
        options = given.options
    else:
        spec = registry.spec_of(kind, type(component))
        options = getattr(component, "options", {})
    return SavedPart(spec.name, options=dict(options), dist=distribution_of(spec, registry))


def distribution_of(spec: ComponentSpec, registry: Registry) -> str:
    """The distribution that registered a component; empty for user code."""
    dists = [dist for dist, known in registry.all_components(spec.kind) if known is spec]
    return dists[0] if dists and dists[0] != USER else ""


def check_rebuilt(kind: str, module: nn.Module, saved: SavedPart, registry: Registry) -> None:
    """Raise `ContractError` unless name, arguments, options and weights give the same module again.

    Otherwise something would be saved that loads as something else. An adapter is tried on latents,
    as an option without weights, such as the kind of activation, would not show otherwise.
    """
    component = f"{kind} '{saved.name}' with options {dict(saved.options)}"
    state = tensors_of(module)
    rebuilt = _construct(kind, Part(saved.name, saved.options), registry, *saved.arguments)
    forms = {key: describe(value) for key, value in tensors_of(rebuilt).items()}
    if forms != {key: describe(value) for key, value in state.items()}:
        raise ContractError(component, f"the tensors of the fitted {kind} when rebuilt", "others")
    rebuilt.load_state_dict(state)
    if kind == "adapter" and not _embed_alike(module, rebuilt, saved.arguments[0]):
        raise ContractError(component, "the fitted adapter's embeddings when rebuilt", "others")


def _embed_alike(fitted: nn.Module, rebuilt: nn.Module, width: int) -> bool:
    """Whether two adapters give the same embeddings of some latents."""
    device = next((value.device for value in fitted.state_dict().values()), torch.device("cpu"))
    rows = torch.randn(4, width, generator=torch.Generator().manual_seed(0)).to(device)
    rows = input_of(fitted, rows)
    with torch.no_grad():
        expected, found = fitted(rows), rebuilt.to(device).eval()(rows)
    return torch.allclose(expected, found, rtol=1e-4, atol=1e-5, equal_nan=True)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module on the CPU, each tensor with its own memory, as safetensors asks."""
    state = module.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ContractError(type(module).__name__, "tensors only in its state", f"'{key}'")
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()}


# -- from the saved form -------------------------------------------------------------------------


def load_parts(folder: Path, config: SavedConfig, registry: Registry) -> dict[str, Built]:
    """The parts of a saved model by name, after every check on names and tensors."""
    tensors = read_tensors(folder)
    expected: dict[str, str] = {}
    with _at_most(_SPARE + 2 * len(tensors)):
        for name, saved in config.parts.items():
            forms = _forms(kind_of_part(name), saved, registry)
            expected |= {f"{name}.{key}": form for key, form in forms.items()}
    expected |= {f"{SEEN}.{m}": f"int32 [{count}]" for m, count in config.seen.items()}
    if config.rotation:
        expected[ROTATION] = f"float32 [{config.rotation}, {config.rotation}]"
    check_tensors(folder, tensors, expected)
    check_digest(folder, config)
    parts = {}
    for name, saved in config.parts.items():
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in tensors.items()
            if key.startswith(f"{name}.")
        }
        component = _loaded(kind_of_part(name), saved, own, registry)
        parts[name] = Built(component, saved.arguments, Part(saved.name, saved.options))
    return parts


def load_seen(folder: Path, config: SavedConfig) -> dict[str, Tensor]:
    """The keys of the items that a saved model was trained on, int32 by modality; its parts were
    loaded before, and so checked."""
    tensors = read_tensors(folder) if config.seen else {}
    return {modality: tensors[f"{SEEN}.{modality}"] for modality in config.seen}


def load_rotation(folder: Path, config: SavedConfig) -> Tensor | None:
    """The matrix that orders the dimensions of a shared space, None if the model has none.

    Raises `ArtefactError` unless it is a rotation of its space.
    """
    if not config.rotation:
        return None
    rotation = read_tensors(folder)[ROTATION]
    if not torch.allclose(rotation.T @ rotation, torch.eye(config.rotation), atol=1e-4):
        raise ArtefactError(f"The tensor '{ROTATION}' in {folder} is not orthogonal.")
    return rotation


def _forms(kind: str, saved: SavedPart, registry: Registry) -> Mapping[str, str]:
    """The tensors that a component has, by key, as `describe` puts them.

    A module is built without memory if it allows that: arguments and options come from a file
    that may be damaged, and are compared with the tensors before anything of their size is
    allocated.
    """
    part = Part(_name(kind, saved, registry), saved.options)
    try:
        with torch.device("meta"):
            component = _construct(kind, part, registry, *saved.arguments)
    except ArtefactError:
        raise
    except Exception:  # what is wrong with the saved form, rather than with meta, shows again here
        component = _build(kind, saved, registry)
    if not isinstance(component, nn.Module):
        return saved.tensors
    if saved.tensors:
        raise ArtefactError(f"The saved {kind} '{saved.name}' lists tensors, as no module does.")
    return {key: describe(value) for key, value in component.state_dict().items()}


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Within, modules can't have more parameters than that: a number of blocks in a file that may
    be damaged would else fill the memory with them."""
    left = count

    def take(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ArtefactError("The saved parts have far more tensors than are saved.")

    handle = register_module_parameter_registration_hook(take)
    try:
        yield
    finally:
        handle.remove()


def _loaded(kind: str, saved: SavedPart, state: Mapping[str, Tensor], registry: Registry) -> Any:
    """The component of a saved form with its tensors, copied; a module in eval mode."""
    component = _build(kind, saved, registry)
    with as_artefact_error(f"The tensors of the saved {kind} '{saved.name}' do not fit it"):
        if isinstance(component, nn.Module):
            component.load_state_dict(state)
            return component.eval()
        if state:
            component.tensors = {name: value.clone() for name, value in state.items()}
        return component


def check_scorer(scorer: Scorer, modalities: tuple[str, ...], dim: int) -> None:
    """Raise `ArtefactError` unless the scorer can score each modality against each."""
    rows = torch.zeros(2, dim)
    rows[:, 0] = 1
    name = type(scorer).__name__
    for query, target in product(modalities, repeat=2):
        with as_artefact_error(f"{name} can't score {query} against {target}"):
            scores = scorer.score(rows, rows[:1], query, target)
        if scores.shape != (2, 1) or not scores.isfinite().all():
            raise ArtefactError(f"{name} gives no finite scores for {query} against {target}.")


def _build(kind: str, saved: SavedPart, registry: Registry) -> Any:
    """A component from its saved form.

    Raises `UnknownNameError` for a name that nothing registered, `MissingDependencyError` for a
    missing package, and `ArtefactError` for anything else that is wrong.
    """
    name = _name(kind, saved, registry)
    with as_artefact_error(f"The saved {kind} '{saved.name}' can't be built"):
        return _construct(kind, Part(name, saved.options), registry, *saved.arguments)


def _construct(kind: str, part: Part, registry: Registry, *args: Any) -> Any:
    """`registry.build`, leaving the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        return registry.build(kind, part, *args)


def _name(kind: str, saved: SavedPart, registry: Registry) -> str:
    """The registered name of the component."""
    try:
        registry.component(kind, saved.name)
    except UnknownNameError as error:
        hint = f"{error.hint}\n{brought_by(saved.name, saved.dist)}".strip()
        raise UnknownNameError(error.message, hint) from None
    except PluginError:  # two distributions claim the name: it was saved with one of them
        return f"{saved.dist}/{saved.name}"
    return saved.name


def brought_by(name: str, dist: str) -> str:
    """What the user should know about an unknown name: who brought it when the model was saved."""
    if not dist:
        return f"It was registered by the code that saved the model: register '{name}' first."
    return f"When the model was saved, the package '{dist}' brought it: install that one."


@contextmanager
def as_artefact_error(what: str) -> Iterator[None]:
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
