"""Metadata of encoders, generators and components: plain data, so that listing them imports nothing
heavy."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fusemix_core.errors import ConfigError, MissingDependencyError, PluginError

KINDS = (
    "adapter",
    "mixup",
    "objective",
    "optimiser",
    "aligner",
    "scorer",
    "correction",
    "selector",
    "evaluator",
    "reader",
    "medium",
    "recipe",
    "fuser",
    "reranker",
    "task",
    "index",
    "artefact",
    "exporter",
)
"""What a `ComponentSpec` may register."""

USES: Mapping[str, tuple[str, ...]] = {
    "objective": ("latents", "tokens", "facts", "trust", "unpaired", "adapters"),
    "adapter": ("tokens",),
    "aligner": ("fixed",),
    "selector": ("latents",),
    "evaluator": ("bank", "classes", "facts"),
    "fuser": ("tokens",),
    "exporter": ("data",),
}
"""What components of a kind may use beyond what all get: what the class and its spec declare.

An objective reads these of a `Step`; `adapters` stands for `step.through` too. An adapter of tokens
is a `TokenAdapter`. An aligner heeds `FitContext.fixed`. A selector looks at latents. An evaluator
reads these of a `Measured`. A fuser of tokens takes latents as `as_tokens` makes them.
An exporter of data writes embeddings of items.
"""

CORE_MEDIA: dict[str, str] = {
    "text": "text",
    "image": "image",
    "audio": "audio",
    "video": "file",
    "table": "table",
}
"""The medium of each modality that core declares (`modalities.py`)."""


CONDITIONS = ("pooled", "tokens", "guidance")
"""The conditions that a generator may take: see `GeneratorSpec`."""

NORMS = ("unit", "raw")
"""How long the vectors are that a generator was trained on: all of length 1, or as the encoder
gives them."""

LEARNT = "learnt"
"""The option of a fitted encoder's spec that has what it learnt; None before."""


def load_target(target: str) -> Any:
    """The object that `pkg.module:Name` names."""
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise PluginError(
            f"'{target}' names nothing: module {module} has no '{attribute}'."
        ) from error


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """All that is known of an encoder without loading it.

    `modality` is any word; `takes` is the medium by which its items arrive: `text` (str), `image`
    (PIL image in RGB), `audio` (`Audio`), `file` (`pathlib.Path`), or one that a plugin brings. By
    default it is the modality's own (`ModalitySpec.medium`), and `text` for an undeclared modality.
    Images come as they are, `image_size` (pixels a side) is for people; sounds come resampled to
    `sample_rate` (Hz). `max_tokens` is where texts are cut, `prompt` what is before each.
    `normalised`: rows of the first view have unit norm.

    `dim` is the width of the `pooled` view. `weights` is a hub id, a local path, or `package/file`
    inside an installed package (with `sha256`). `revision` pins a hub id. `requires` maps each
    module the target imports to the pip requirement that brings it. `options` are handed to the
    target. `items` is a source of data whose column `id` lists the encoder's own items: it is read
    if no data are given. `version` is raised when the encoder's maths change: it is part of the
    fingerprint. `price` is in US dollars per million tokens, where encoding costs money.
    `environment` names the variables that must be set before anything can be encoded, such as that
    of a key. `batch` is how many items `encode` gets at once, where the usual number does not suit.

    `parameters` is the number of weights; 0 says that there are none: then only target, options and
    version decide the latents. An encoder is `fitted` if it learns from training items before it
    encodes any (`Encoder.fit`); its findings are in `options["learnt"]`.

    `views` are what `Encoder.encode` can give, the first one by default. A name begins with its
    kind, alone or with a variant behind a dash (`pooled`, `pooled-cls-mean`): `pooled [n, d]`,
    `layers [n, L, d]`, `tokens [n, T, d]`, `grid [n, H, W, d]`, `time [n, T, d]`.
    """

    name: str
    modality: str
    target: str
    dim: int | None = None
    summary: str = ""
    aliases: tuple[str, ...] = ()
    views: tuple[str, ...] = ("pooled",)
    takes: str = ""
    weights: str = ""
    sha256: str = ""
    revision: str = ""
    licence: str = ""
    normalised: bool = False
    image_size: int | None = None
    sample_rate: int | None = None
    max_tokens: int | None = None
    prompt: str = ""
    parameters: int | None = None
    price: float = 0.0
    environment: tuple[str, ...] = ()
    batch: int | None = None
    paper: str = ""
    requires: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    items: str = ""
    fitted: bool = False
    version: str = "1"
    local: bool = False
    """True when weights came from the user as a path (`NAME@PATH`)."""

    def __post_init__(self) -> None:
        if not self.takes:
            # A plugin's modality: the registry fills it in at look-up (`Registry.settled`).
            medium = CORE_MEDIA.get(plain_modality(self.modality), "")
            object.__setattr__(self, "takes", medium)

    @property
    def unfitted(self) -> bool:
        """Whether the encoder must still be fitted before it can encode."""
        return self.fitted and self.options.get(LEARNT) is None

    def check_requirements(self) -> None:
        """Raise `MissingDependencyError`, without importing, if a required module is absent."""
        check_requirements(self.name, self.requires)

    def check_environment(self) -> None:
        """Raise `ConfigError` if a variable of `environment` is not set, or empty."""
        for variable in self.environment:
            if not os.environ.get(variable, "").strip():
                raise ConfigError(
                    f"{self.name} needs the environment variable {variable}, which is not set.",
                    f"export {variable}=…",
                )


@dataclass(frozen=True, kw_only=True)
class GeneratorSpec:
    """All that is known of a generator without loading it.

    Attributes:
        name: How users name it.
        target: `pkg.module:Class`, a `Generator`.
        space: The registered encoder whose latents condition it, such as `minilm`. A fused model
            works with the generator if one of its fixed modalities has this encoder. Empty if the
            condition is `guidance`.
        view: Of that encoder.
        makes: The modality of the items that it makes.
        condition: `pooled`: a vector per item, `[n, d]`. `tokens`: a sequence of vectors per item.
            `guidance`: the score of a fused model that has the modality `makes` steers it.
        norm: `unit` if it was trained on vectors of length 1, `raw` if on latents as the encoder
            gives them.
        dim: The width of the condition.
        size: Pixels a side by default.
        weights: A hub id, a local path, or `package/folder` inside an installed package (with
            `sha256`: of a file its own, of a folder that of `fusemix_core.digests.path_sha256`).
        revision: Pins a hub id.
        options: What users may set, with the defaults, such as `steps` and `guidance`.
        parameters: The number of weights.
        requires: Each module that the target imports → the pip requirement that brings it.
        local: True when weights came from the user as a path (`NAME@PATH`).

    Example:
        GeneratorSpec(name="sketch", target="my:Sketch", space="minilm", dim=384, size=64)
    """

    name: str
    target: str
    space: str = ""
    view: str = "pooled"
    makes: str = "image"
    condition: str = "pooled"
    norm: str = "unit"
    dim: int | None = None
    size: int | None = None
    summary: str = ""
    aliases: tuple[str, ...] = ()
    weights: str = ""
    sha256: str = ""
    revision: str = ""
    licence: str = ""
    parameters: int | None = None
    paper: str = ""
    requires: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False

    def __post_init__(self) -> None:
        for field_name, known in (("condition", CONDITIONS), ("norm", NORMS)):
            if (value := getattr(self, field_name)) not in known:
                raise PluginError(
                    f"The generator '{self.name}' has the unknown {field_name} '{value}'.",
                    f"Known: {', '.join(known)}.",
                )
        if not self.space and self.condition != "guidance":
            raise PluginError(
                f"The generator '{self.name}' doesn't say which encoder's latents condition it.",
                "Give the name of a registered encoder in `space`.",
            )

    def check_requirements(self) -> None:
        """Raise `MissingDependencyError`, without importing, if a required module is absent."""
        check_requirements(self.name, self.requires)


ModelledSpec = EncoderSpec | GeneratorSpec
"""The spec of a model with weights of its own."""


def plain_modality(name: str) -> str:
    """The modality whose medium, columns and prompts another one has: `image` of `image:front`."""
    return name.partition(":")[0]


def kind_of(view: str) -> str:
    """The kind of a view, with which its name begins: `pooled` of `pooled-cls-mean`."""
    return view.partition("-")[0]


@dataclass(frozen=True, kw_only=True)
class FamilySpec:
    """Opens a whole hub: `PREFIX:NAME` becomes the spec that `resolve` returns.

    That is an `EncoderSpec` if the hook `fusemix_encoders` returns the family, a `GeneratorSpec` if
    `fusemix_generators` does.

    `resolve` is `pkg.module:function`, imported only on use, and must itself be light. It is called
    as `resolve(NAME, modality, path)`: `modality` is what the user calls it, as in
    `-e image=PREFIX:NAME`, or None; `path` the folder or file of `PREFIX:NAME@PATH`, or None.
    """

    prefix: str
    resolve: str
    summary: str = ""
    example: str = ""
    requires: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModalitySpec:
    """The habits of a modality's items. A plugin may declare a new one, or add to it.

    Attributes:
        name: The modality, such as `molecule`.
        medium: How its items arrive if an encoder's spec does not say: a `medium` component.
        suffixes: Of its files, small letters with the dot. Folders and tar shards are read by them.
        columns: Names that its column often has, the likeliest first. Case is ignored.
        prompts: Templates for zero-shot classification of its items, `{}` for the class.
        example: An item as a person would write it, for model cards (a file name, a SMILES string).

    Example:
        ModalitySpec(name="molecule", medium="text", columns=("smiles",), example="CCO")
    """

    name: str
    medium: str = "text"
    suffixes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A saved model that a plugin's package contains: users name it `PLUGIN:NAME`.

    Attributes:
        name: The part of the name after the plugin's entry point.
        path: The folder that `save_pretrained` wrote, `package/folder`.
        summary: What it is for, in a line.
        licence: Of the model; its card says of what it was made.

    Example:
        ModelSpec(name="figures", path="my_package/models/figures", licence="CC-BY-4.0")
    """

    name: str
    path: str
    summary: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """A component of one of the `KINDS`, by its name.

    `options` lists every keyword option of the target with its default, so that a wrong option is
    found before anything is imported; a test holds it equal to the target's signature.

    `uses` is what the class declares as its own `uses`, so that a plan can refuse what can't work
    before anything is imported. `wraps` names the option that names another component of the same
    kind, which this one builds with its option `options`; what the other uses, this one uses too.

    `keeps_items` says that what is saved of the component, or of the adapters that an aligner fits,
    contains rows made of training items, such as landmarks or a bank. `without_items` are options
    with which it contains none; if there are none, a private run refuses the component.

    `search` is for recipes: the settings that `fusemix bench --search` tries, as `--set` names
    them, with their values. The recipe's own settings are always tried first.
    """

    kind: str
    name: str
    target: str
    summary: str = ""
    aliases: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    paper: str = ""
    uses: tuple[str, ...] = ()
    wraps: str = ""
    keeps_items: bool = False
    without_items: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PluginError(
                f"Component '{self.name}' has the unknown kind '{self.kind}'.",
                f"Kinds: {', '.join(KINDS)}.",
            )
        known = USES.get(self.kind, ())
        if unknown := [use for use in self.uses if use not in known]:
            raise PluginError(
                f"The {self.kind} '{self.name}' can't use '{unknown[0]}'.",
                f"What a {self.kind} may use: {', '.join(known) or 'nothing'}.",
            )
        if self.wraps and not {self.wraps, "options"} <= set(self.options):
            raise PluginError(
                f"The {self.kind} '{self.name}' wraps '{self.wraps}', and has not the options "
                f"'{self.wraps}' and 'options'."
            )

    @classmethod
    def recipe(cls, function: Callable[[], Any], **more: Any) -> ComponentSpec:
        """The spec of a recipe: name, summary and paper are those of the `Recipe` it returns.

        `function` is called when the plugin loads, so it must import nothing heavy. `more` are
        further fields, such as `aliases`, `requires` and `search`.

        Example:
            ComponentSpec.recipe(my_recipe, search={"training.lr": (3e-4, 1e-3, 3e-3)})
        """
        made = function()
        paper = made.paper
        if paper.startswith("arXiv:"):
            paper = f"https://arxiv.org/abs/{paper.removeprefix('arXiv:')}"
        return cls(
            kind="recipe",
            name=made.name,
            target=f"{function.__module__}:{function.__qualname__}",
            summary=made.summary,
            paper=paper,
            **more,
        )

    def check_requirements(self) -> None:
        """Raise `MissingDependencyError`, without importing, if a required module is absent."""
        check_requirements(self.name, self.requires)


def check_requirements(name: str, requires: Mapping[str, str]) -> None:
    """Raise `MissingDependencyError` for the first module of `requires` that is not installed."""
    for module, requirement in requires.items():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise MissingDependencyError.of(name, module, requirement)
