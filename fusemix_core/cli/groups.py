"""Groups of options that several commands share, those of plugins included.

A group is a frozen dataclass with one field per option. A command that is decorated with `grouped`
takes groups as parameters; its users see one option per field.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from fusemix_core.cli import options as o
from fusemix_core.config import Part, RunConfig, parse_part, to_dict
from fusemix_core.errors import ConfigError
from fusemix_core.overrides import in_order
from fusemix_core.registry import registry

NONE = "none"
USUAL = RunConfig.baselines
"""The baselines of runs if nobody says otherwise."""


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """The command with one parameter per field of each of its groups, for typer.

    Args:
        function: A command, whose parameters may be annotated with groups.

    Example:

        @app.command()
        @grouped
        def count(data: DataOptions, json: o.Json = False) -> None:
            "Count the rows of a dataset."
            table = data.table()
    """
    groups: dict[str, type] = {}
    parameters: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
        for one in _fields(parameter.annotation) if name in groups else [parameter]:
            if one.name in parameters:
                raise TypeError(f"{function.__name__} has the option '{one.name}' twice.")
            parameters[one.name] = one.replace(kind=inspect.Parameter.KEYWORD_ONLY)

    @wraps(function)
    def command(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})
        function(**given)

    # pyrefly: ignore[missing-attribute]  # `inspect.signature` looks for it
    command.__signature__ = inspect.Signature(list(parameters.values()))
    command.__annotations__ = {p.name: p.annotation for p in parameters.values()}
    return command


def _fields(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    kind, missing = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    return [
        inspect.Parameter(
            f.name,
            kind,
            default=missing if f.default is MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in fields(group)
    ]


def given(**values: Any) -> dict[str, Any]:
    """Only what the user gave: the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class EncoderOptions:
    """Which encoders, and which of their views: `--a`, `--b`, `--encoder`, `--view`."""

    a: o.A = None
    b: o.B = None
    encoder: o.Encoders = None
    view: o.Views = None

    def names(self) -> dict[str, str]:
        """modality → encoder name; two encoders of one modality are called `a` and `b`.

        Raises:
            ConfigError: If only one of `--a` and `--b` is given, or one of them with `--encoder`.
        """
        return o.encoder_values(self.a, self.b, self.encoder)

    def views(self) -> dict[str, str]:
        """modality → view; with one encoder, `--view` may leave out the modality."""
        return o.view_values(self.view, o.key_values(self.encoder, "--encoder"))


@dataclass(frozen=True)
class SideOptions:
    """The encoders of two modalities, several of each: `--a`, `--b`, `--encoder`."""

    a: Annotated[
        str | None,
        typer.Option(
            "--a",
            metavar="NAME,NAME,…",
            help="Encoders of one modality.",
            rich_help_panel=o.ENCODERS,
        ),
    ] = None
    b: Annotated[
        str | None,
        typer.Option(
            "--b", metavar="NAME,NAME,…", help="Those of the other.", rich_help_panel=o.ENCODERS
        ),
    ] = None
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            "-e",
            metavar="MODALITY=NAME,NAME",
            help="The same with the name of the modality, as the data have it; give two.",
            rich_help_panel=o.ENCODERS,
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Whether any encoder is named."""
        return any((self.a, self.b, self.encoder))

    def sides(self) -> dict[str, list[str]]:
        """modality → encoders; the modalities of `--a` and `--b` are those of their first encoders,
        or `a` and `b` if these are of one.

        Raises:
            ConfigError: Unless there are encoders of two modalities.
        """
        named = {m: _names(v) for m, v in o.key_values(self.encoder, "--encoder").items()}
        pair = [_names(self.a), _names(self.b)]
        if named:
            if len(named) != 2 or any(pair) or not all(named.values()):
                raise ConfigError("Give --encoder for two modalities, or --a and --b.")
            return named
        if not all(pair):
            raise ConfigError("Give --a and --b, or --encoder for two modalities.")
        kinds = [registry.encoder(names[0]).modality for names in pair]
        return dict(zip(kinds if kinds[0] != kinds[1] else ("a", "b"), pair, strict=True))


def _names(text: str | None) -> list[str]:
    return [n.strip() for n in (text or "").split(",") if n.strip()]


@dataclass(frozen=True)
class DataOptions:
    """Where the items are, and how cells are written: `--data`, `--column`, `--drop`,
    `--reader`, `--encoding`, `--delimiter`, `--missing-values`, `--missing`, `--prefix`,
    `--suffix`, `--max-bad`, `--allow-outside`."""

    data: o.Data = None
    column: o.Columns = None
    drop: o.Drop = None
    reader: o.Reader = None
    text_encoding: o.TextEncoding = None
    delimiter: o.Delimiter = None
    missing_values: o.MissingValues = None
    missing: o.Missing = None
    prefix: o.Prefix = None
    suffix: o.Suffix = None
    max_bad: o.MaxBad = None
    allow_outside: o.AllowOutside = None

    def table(self) -> dict[str, Any]:
        """The fields of `DataConfig` that were given."""
        words = None if self.missing_values is None else self.missing_values.split(",")
        return given(
            source=list(self.data) if self.data else None,
            columns=o.column_values(self.column) or None,
            drop=o.column_values(self.drop, "--drop") or None,
            reader=self.reader_table(),
            encoding=self.text_encoding,
            delimiter=self.delimiter,
            missing_values=words,
            missing=self.missing,
            prefix=o.affix_values(self.prefix, "--prefix") or None,
            suffix=o.affix_values(self.suffix, "--suffix") or None,
            max_bad=self.max_bad,
            allow_outside=self.allow_outside,
        )

    def reader_table(self) -> dict[str, Any] | None:
        """The reader that was given, with its options.

        Raises:
            UnknownNameError: If it, or one of its options, is not registered.
        """
        if self.reader is None:
            return None
        part = parse_part(self.reader)
        registry.check("reader", part)
        return to_dict(part)


@dataclass(frozen=True)
class SplitOptions:
    """How the rows are split: `--validation`, `--test`, `--split-column`, `--group-by`,
    `--validation-fraction`, `--test-fraction`."""

    validation: o.Validation = None
    test: o.Test = None
    split_column: o.SplitColumn = None
    group_by: o.GroupBy = None
    validation_fraction: o.ValidationFraction = None
    test_fraction: o.TestFraction = None

    def table(self) -> dict[str, Any]:
        """The fields of `DataConfig` that were given."""
        return given(**vars(self))


@dataclass(frozen=True)
class FactOptions:
    """Which further columns the rows have: `--fact`, `--trust-column`."""

    fact: o.Facts = None
    trust_column: o.TrustColumn = None

    def table(self) -> dict[str, Any]:
        """The fields of `DataConfig` that were given."""
        facts = o.key_values(self.fact, "--fact", "NAME=COLUMN", "age=age_years")
        return given(facts=facts or None, trust_column=self.trust_column)


@dataclass(frozen=True)
class EncodingOptions:
    """How latents are made and where they are kept: `--store-dtype`, `--encode-batch`,
    `--backend`, `--decode-processes`, `--store`."""

    store_dtype: o.StoreDtype = None
    encode_batch: o.EncodeBatch = None
    backend: o.Backend = None
    decode_processes: o.DecodeProcesses = None
    store: o.Store = None

    def table(self) -> dict[str, Any]:
        """The fields of `RunConfig` that were given."""
        return given(**vars(self))


@dataclass(frozen=True)
class RecipeOptions:
    """Which recipe, and what is changed in it: `--recipe`, `--set`."""

    recipe: o.Recipe = None
    set_: o.Set = None

    @property
    def overrides(self) -> list[str]:
        """`key=value` settings of the recipe. Raises ConfigError if one undoes one before it."""
        return in_order(self.set_ or [])


@dataclass(frozen=True)
class EvaluatorOptions:
    """Which evaluators measure, beside those that always do, and what is compared with:
    `--evaluator`, `--by`, `--baseline`."""

    evaluator: o.Evaluators = None
    by: o.By = None
    baseline: o.Baselines = None

    def parts(self) -> list[Part]:
        """The evaluators that were given, with their options.

        Raises:
            UnknownNameError: If one, or one of its options, is not registered.
        """
        parts = [parse_part(text) for text in self.evaluator or ()]
        if self.by and not any(part.name == "groups" for part in parts):
            parts.append(Part("groups"))
        for part in parts:
            registry.check("evaluator", part)
        return parts

    def facts(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Fields of `DataConfig` with the columns of `--by` among their facts."""
        columns = {column: f"{column}:class" for column in self.by or ()}
        return facts | ({"facts": columns | facts.get("facts", {})} if columns else {})

    def table(self) -> dict[str, Any]:
        """The fields of `RunConfig` that were given."""
        evaluators = [to_dict(part) for part in self.parts()]
        return given(evaluators=evaluators or None, baselines=self.baselines(USUAL))

    def baselines(self, usual: Sequence[str] = ()) -> list[str] | None:
        """The baselines to compare with, `usual` first; None if nothing was given."""
        if self.baseline is None:
            return None
        if NONE in self.baseline:
            return []
        return list(dict.fromkeys([*usual, *self.baseline]))


@dataclass(frozen=True)
class RunOptions:
    """A run and its folder: `--config`, `--out`, `--resume`, `--seed`, `--private`."""

    config: o.ConfigFile = None
    out: o.Out = None
    resume: o.Resume = False
    seed: o.Seed = None
    private: o.Private = False


@dataclass(frozen=True)
class OutputOptions:
    """What is printed: `--dry-run`, `--json`."""

    dry_run: o.DryRun = False
    json: o.Json = False
