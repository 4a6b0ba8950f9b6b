"""The model card: what a saved model is, how to load it, what it is known to do."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fusemix_core.data.media import medium
from fusemix_core.errors import UnknownNameError
from fusemix_core.project import PUBLISHED, install, repository
from fusemix_core.registry import registry
from fusemix_core.saved.front_matter import front_matter, licence_of, licences
from fusemix_core.saved.licences import UNKNOWN
from fusemix_core.saved.schema import EncoderInfo, SavedConfig

_MOST_ROWS = 40
"""Rows of a table of metrics."""
_ID = "id"
"""The medium of latents that exist already: an item is the id of a row."""
_COMMANDS = (
    "index {model}{encoders} --data {data} --out my.index",
    "search my.index{encoders} {query}",
    "serve my.index{encoders}  # a page, and an API of OpenAI's form; plugin fusemix-serve",
    "export {model}{encoders} --to onnx --out for-onnx  # or st: sentence-transformers",
)
"""Uses of a fused model on the command line."""
_SEEN = (
    "The model keeps 32 bits of a digest of each training item, so that `fusemix eval` can tell "
    "which data are not new. Whoever has an item can see by it whether the item was trained on."
)


@dataclass(frozen=True)
class CardText:
    """The texts of a kind of model for its card.

    summary: one paragraph. loader: the public class that loads it. code: lines of Python that use
    `model`, once it is loaded. commands: arguments of `fusemix`, with `{model}` for its name,
    `{encoders}` for the options that it needs, `{data}` for data of its items and `{query}` for one
    of them. limitations: items of a list.
    """

    summary: str
    loader: str = ""
    code: Sequence[str] = ()
    commands: Sequence[str] = ()
    limitations: Sequence[str] = ()


def model_card(config: SavedConfig, name: str, text: CardText | None = None) -> str:
    """The card, Markdown with YAML front matter, of a model that is loaded by `name`."""
    encoders = list(config.encoders.values())
    text = text or CardText(f"A model of the kind {_code(config.kind)}, {saved_by(config)}.")
    parts = [
        front_matter(config, name),
        f"# {' + '.join(f'{_code(e.name)}' for e in encoders)}",
        text.summary,
        "## Use",
        _usage(config, encoders, name, text),
        "## Encoders",
        _encoder_table(encoders),
        "The encoders are not part of this model: each is loaded under its own licence, and only "
        "if its fingerprint is the one of the fit.",
        "## Licence",
        _licence(config),
        *_section("## Data", _listing(config.data)),
        *_section("## Evaluation", _evaluation(config.metrics)),
        *_section("## Fit", _listing({"recipe": config.recipe, "objective": config.objective})),
        "## Limitations",
        _limitations(config, text.limitations),
    ]
    return "\n\n".join(parts) + "\n"


def saved_by(config: SavedConfig) -> str:
    """`fitted by fusemix 0.1.0 with the recipe …`, as Markdown."""
    recipe = config.recipe.get("name")
    fitted = f" with the recipe {_code(recipe)}" if recipe else ""
    name = f"[fusemix]({repository()})" if repository() else "fusemix"
    return f"fitted by {name} {_text(config.fusemix)}{fitted}"


def fused_text(config: SavedConfig) -> CardText:
    """The text of a fused model."""
    encoders = list(config.encoders.values())
    *first, last = config.encoders
    width = config.parts[f"adapter.{last}"].arguments[1]
    scorer = config.parts["scorer"]
    rows = {e.modality: re.sub(r"^(?=\d)|\W", "_", e.modality) + "_rows" for e in encoders}
    a, b = encoders[0].modality, encoders[1].modality
    code = [
        *(
            f"{rows[e.modality]} = model.encode({e.modality!r}, {_example(e)})"
            + ("  # ids of its rows" if e.takes == _ID else "")
            for e in encoders
        ),
        f"scores = model.similarity({rows[b]}, {rows[a]}, {b!r}, {a!r})",
    ]  # fmt: skip
    limitations = ["Scores rank the items of one gallery; they are not probabilities."]
    if scorer.tensors:
        limitations.append("It contains embeddings of training items, for its scorer.")
    if landmarks := max((_landmarks(part.options) for part in config.parts.values()), default=0):
        limitations.append(f"It contains latents of {landmarks:,} training items per modality.")
    summary = (
        f"One space of {width} dimensions for {', '.join(first)} and {last}: small adapters on "
        f"frozen encoders, {saved_by(config)}. Scores are {_code(scorer.name)}."
    )
    return CardText(summary, "FusedModel", code, _COMMANDS, limitations)


def _landmarks(options: Any) -> int:
    """The most landmarks that a part has, or a part within it."""
    if isinstance(options, Mapping):
        own = options.get("landmarks", 0)
        return max([own if isinstance(own, int) else 0, *map(_landmarks, options.values())])
    return max(map(_landmarks, options), default=0) if isinstance(options, list | tuple) else 0


def _section(title: str, body: str) -> tuple[str, ...]:
    return (title, body) if body else ()


def _usage(config: SavedConfig, encoders: list[EncoderInfo], name: str, text: CardText) -> str:
    """Code that runs as it is, but for the items' file names."""
    given = [f"{e.modality!r}: {e.name!r}" for e in encoders if not e.registered]
    extra = f", encoders={{{', '.join(given)}}}" if given else ""
    lines = [
        "```python",
        f"from fusemix_core import {text.loader or 'load'}",
        "",
        f"model = {f'{text.loader}.from_pretrained' if text.loader else 'load'}({name!r}{extra})",
        *text.code,
        "```",
        *_shell(encoders, name, text.commands),
    ]
    dists = {named.dist for named in (config, *encoders, *config.parts.values()) if named.dist}
    needed = [f"`{install(*sorted(dists | {'fusemix'}))}`", "", *lines]
    if not (PUBLISHED or repository()):
        needed[0] = f"In a clone of the repository of fusemix: {needed[0]}"
    return "\n".join(needed)


def _shell(encoders: list[EncoderInfo], name: str, commands: Sequence[str]) -> list[str]:
    """A block of commands that can be copied, but for the items' names."""
    named = [f" -e {shlex.quote(f'{e.modality}={e.name}')}" for e in encoders if not e.registered]
    ids = [e.modality for e in encoders if e.takes == _ID]
    known = {
        "model": shlex.quote(name),
        "encoders": "".join(named),
        "data": "pairs.csv" if ids else "my_folder",
        "query": f"0 --from {ids[-1]}" if len(ids) == len(encoders) else "QUERY",
    }
    lines = [f"fusemix {command.format(**known)}" for command in commands]
    return ["", "From the command line:", "", "```sh", *lines, "```"] if lines else []


def _example(encoder: EncoderInfo) -> str:
    """A list of one item, as Python."""
    declared = registry.modality(encoder.modality)
    fits = declared and declared.example and encoder.takes == declared.medium
    items = [declared.example] if declared and fits else []
    with suppress(UnknownNameError):  # the plugin of its medium is not installed
        items = items or medium(encoder.takes).example()
    return json.dumps(items[:1] or ["item"], ensure_ascii=False)


def _encoder_table(encoders: list[EncoderInfo]) -> str:
    rows = [
        [
            e.modality,
            _code(e.name),
            f"{_text(e.weights)}{f' @ {_text(e.revision)}' if e.revision else ''}" or "",
            f"{_text(e.view)}, {e.dim}, {e.dtype}",
            _text(e.licence) or "not stated",
            _code(e.fingerprint[:16]),
        ]
        for e in encoders
    ]
    head = ["modality", "encoder", "weights", "latents", "licence", "fingerprint"]
    return _table(head, rows)


def _licence(config: SavedConfig) -> str:
    """The licences behind that at the top of the card, and those that are not known."""
    stated = {of: licence for of, licence in licences(config).items() if licence}
    lines = [f"- {_text(of)}: {_text(licence)}" for of, licence in stated.items()]
    lines += [f"- {_text(of)}: not stated" for of in licences(config) if of not in stated]
    if (found := licence_of(config)) == UNKNOWN:
        says = "No licence is given for the model, as not all of these are stated:"
    else:
        says = f"The model has the strictest licence of these, {_code(found)}:"
    return "\n".join([says, "", *lines])


def _evaluation(metrics: Mapping[str, Any]) -> str:
    """What evaluators measured, under the names that it has in results.json: mappings of mappings
    as tables, all else as a list."""
    tables, lines = _tables(metrics), _lines(metrics)
    blocks = [f"**{_text(' '.join(path))}**\n\n{table}" for path, table in tables]
    if lines:
        blocks.append("\n".join(lines))
    note = "Names are those of `results.json`; in brackets are intervals."
    return "\n\n".join([*blocks, note]) if blocks else ""


def _tables(
    table: Mapping[Any, Any], at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            path = (*at, str(key))
            if _is_table(value):
                yield path, _rows(value)
            else:
                yield from _tables(value, path)


def _lines(table: Mapping[str, Any], at: str = "") -> list[str]:
    """The numbers and texts of nested metrics that are in no table."""
    lines = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += [] if _is_table(value) else _lines(value, f"{at}{key}.")
        elif _is_plain(value):
            interval = _between(table.get(f"{key}_interval"))
            lines.append(f"- {_text(f'{at}{key}')}: {_number(value)}{interval}")
    return lines


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _is_table(value: Mapping[str, Any]) -> bool:
    """Whether each entry is a mapping with a number or a text in it."""
    rows = value.values()
    return bool(rows) and all(
        isinstance(row, Mapping) and any(map(_is_plain, row.values())) for row in rows
    )


def _rows(value: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per entry, one column per number or text that an entry has."""
    columns = list(dict.fromkeys(k for row in value.values() for k in row if _is_plain(row[k])))
    rows = [
        [
            _text(name),
            *(_number(row.get(c)) + _between(row.get(f"{c}_interval")) for c in columns),
        ]
        for name, row in list(value.items())[:_MOST_ROWS]
    ]
    more = len(value) - len(rows)
    rest = f"\n\nThe other {more:,} are in `results.json`." if more > 0 else ""
    return _table(["", *map(_text, columns)], rows) + rest


def _limitations(config: SavedConfig, more: Sequence[str]) -> str:
    lines = [
        "It was fitted on the data above and is known to work on data like these only; what the "
        "encoders do not see, no adapter can find.",
        "The encoders' biases, and those of the pairs, are in the model. Look at what it gives for "
        "the people and subjects that matter to you before relying on it.",
        *more,
        *([_SEEN] if config.seen else []),
        *([] if config.metrics else ["No evaluation was recorded."]),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _listing(table: Mapping[str, Any]) -> str:
    """Nested tables as a list of dotted keys and values."""
    return "\n".join(
        f"- {_text('.'.join(path))}: {_text(value)}"
        for path, value in _walk(table)
        if not isinstance(value, Mapping) and value != []
    )


def _walk(
    table: Mapping[Any, Any], at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        path = (*at, str(key))
        if key == "warnings" and isinstance(value, list):
            yield from (((*at, "note"), one) for one in value)
        else:
            yield path, value
        if isinstance(value, Mapping):
            yield from _walk(value, path)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else _text(value)


def _between(interval: Any) -> str:
    """` (low–high)` of a pair of numbers, else nothing."""
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        return ""
    if not all(isinstance(bound, int | float) for bound in interval):
        return ""
    return f" ({_number(float(interval[0]))}–{_number(float(interval[1]))})"


def _text(value: Any) -> str:
    """One line that Markdown leaves as it is, in a table or out of one."""
    line = " ".join(str(value).split())
    for mark in "\\`*_|<>[]":
        line = line.replace(mark, f"\\{mark}")
    return line


def _code(value: Any) -> str:
    return "`" + " ".join(str(value).split()).replace("`", "'").replace("|", "\\|") + "`"
