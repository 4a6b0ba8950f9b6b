"""`/api/…`: what the page asks of the collection."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from torch import Tensor

from fusemix_serve.files import checked_key, key_of
from fusemix_serve.gallery import Gallery, Question
from fusemix_serve.inputs import Raw, only
from fusemix_serve.replies import Refused, reply
from fusemix_serve.state import State, body_of, gallery_of, state_of

_FIELDS = ("queries", "weights", "minus", "to", "k", "offset", "where", "within",
           "group_duplicates", "min_percentile", "places", "rerank")  # fmt: skip
_FORMS = ("text", "upload", "key")
_QUERIES = 16
_CORNERS = 64
_PAGE = 100_000
_DEEPEST = 2000
"""The furthest result that can be asked for."""
_ONE = "Only the results of one query, without 'minus', can be ranked anew."


async def info(request: Request) -> Response:
    """GET: the collection, its modalities and columns."""
    state, gallery = state_of(request), gallery_of(request)
    return reply(await state.workers.run(gallery.described))


async def upload(request: Request) -> Response:
    """POST: a file to search by; `?modality=NAME`."""
    state, gallery = state_of(request), gallery_of(request)
    modality = state.asking.inputs.modality(request.query_params.get("modality", ""))
    if gallery.takes(modality) not in ("image", "audio"):
        raise Refused(415, f"Items of {modality} can't be uploaded.")
    try:
        data = await request.body()
    except ClientDisconnect as error:
        raise Refused(400, "The upload ended early.") from error
    raw = Raw(modality, data)
    state.asking.inputs.check(await state.workers.run(state.asking.inputs.cost, [raw]))
    return reply({"upload": state.uploads.add(raw)}, 201)


async def search(request: Request) -> Response:
    """POST: an object with any of `_FIELDS`. Without queries it browses."""
    started = time.perf_counter()
    body, state, gallery = await body_of(request), state_of(request), gallery_of(request)
    only(body, _FIELDS, "a search")
    asked = question(body, gallery, state.settings.limits.hits)
    vectors, modalities, keys = await _queries(body, state, gallery)
    weights = _weights(body, len(vectors))
    minus = [checked_key(key) for key in _listed(body, "minus", _QUERIES)]
    if len(vectors) or minus:
        known = await state.workers.run(gallery.records, minus)
        if len(known) < len(set(minus)):
            raise Refused(404, "The collection has no item of a key in 'minus'.")
        vector = await state.workers.run(gallery.combined, vectors, weights, minus)
        if vector is None:
            raise Refused(400, "The queries cancel each other out.", "Take one away.")
        exclude = tuple(dict.fromkeys((*keys, *minus)))
        modality = _main(modalities, weights, gallery)
        asked = replace(asked, vector=vector, modality=modality, exclude=exclude)
    asked = await _with_item(body, asked, state, gallery, bool(minus))
    found = await state.workers.run(gallery.search, asked)
    took = (time.perf_counter() - started) * 1000
    answer = {"took_ms": round(took, 1)} | vars(found)
    return await state.workers.run(reply, answer)


def question(body: dict[str, Any], gallery: Gallery, most: int) -> Question:
    """The filters of a search, checked. Raises `Refused`."""
    to, where = body.get("to"), body.get("where")
    _check_target(to, gallery)
    if where is not None and not isinstance(where, str):
        raise Refused(400, "'where' must be a string, such as \"year > 2020\".")
    least = body.get("min_percentile")
    if least is not None and not (_number(least) and 0 <= least <= 100):
        raise Refused(400, "'min_percentile' must be a number from 0 to 100.")
    fold, places = (body.get(name, False) for name in ("group_duplicates", "places"))
    if not isinstance(fold, bool) or not isinstance(places, bool):
        raise Refused(400, "'group_duplicates' and 'places' must be true or false.")
    return Question(
        to=to,
        where=where or None,
        within=_polygon(body.get("within")),
        least=least,
        fold=fold,
        places=places,
        count=_whole(body, "k", 10, 1, most),
        offset=_whole(body, "offset", 0, 0, _DEEPEST if _listed(body, "queries") else 10**9),
    )


async def _with_item(
    body: dict[str, Any], asked: Question, state: State, gallery: Gallery, minus: bool
) -> Question:
    """The question with the query itself, if its results are to be ranked anew: those of one query
    are, unless `rerank` is false."""
    queries, wanted = _listed(body, "queries", _QUERIES), body.get("rerank")
    if wanted not in (None, True, False):
        raise Refused(400, "'rerank' must be true or false.")
    fits = len(queries) == 1 and not minus and gallery.reranking is not None
    if wanted and not fits:
        why = "This server has no re-ranker." if gallery.reranking is None else _ONE
        raise Refused(400, why, "Start it with one: fusemix serve I --rerank R")
    if not fits or wanted is False:
        return asked
    if "key" in queries[0]:
        item = await state.workers.run(gallery.collection.media, queries[0]["key"])
    else:
        item = (await state.workers.run(state.asking.inputs.decode, [_raw(queries[0], state)]))[0]
    return replace(asked, item=item)


def _check_target(to: Any, gallery: Gallery) -> None:
    own = tuple(gallery.collection.modalities)
    if to is not None and to not in own:
        raise Refused(
            400, "There is nothing of that modality to search in.", f"There is {', '.join(own)}."
        )


async def _queries(
    body: dict[str, Any], state: State, gallery: Gallery
) -> tuple[Tensor, list[str], list[str]]:
    """(unit-norm vectors `[n, d]` of the queries, their modalities, the keys among them)."""
    raws: list[Raw | None] = []
    keys: list[str] = []
    for query in _listed(body, "queries", _QUERIES):
        if not isinstance(query, dict):
            raise Refused(400, "A query must be an object.", 'Such as {"text": "a map"}.')
        only(query, (*_FORMS, "modality"), "a query")
        if sum(form in query for form in _FORMS) != 1:
            raise Refused(400, "A query needs one of 'text', 'upload' and 'key'.")
        if "key" in query:
            keys.append(checked_key(query["key"]))
            raws.append(None)
        else:
            raws.append(_raw(query, state))
    given = [raw for raw in raws if raw is not None]
    encoded = iter(await state.asking.encode(given) if given else ())
    records = await state.workers.run(gallery.records, keys) if keys else []
    modality_of = {one["key"]: one["modality"] for one in records}
    if missing := [key for key in keys if key not in modality_of]:
        raise Refused(404, f"The collection has no item of the key {missing[0]}.")
    own = iter(await state.workers.run(gallery.collection.vectors, keys) if keys else ())
    rows = [next(own).float() if raw is None else next(encoded) for raw in raws]
    names = iter(keys)
    modalities = [modality_of[next(names)] if raw is None else raw.modality for raw in raws]
    return torch.stack(rows) if rows else torch.zeros(0, gallery.model.dim), modalities, keys


def _raw(query: dict[str, Any], state: State) -> Raw:
    """A query that is to be encoded: a text, an upload, or an item as `/v1/embeddings` takes it."""
    if isinstance(name := query.get("upload"), str):
        return state.uploads.get(name)
    modality = query.get("modality")
    if modality is not None and not isinstance(modality, str):
        raise Refused(400, "'modality' must be a string.")
    if isinstance(text := query.get("text"), str):
        return state.asking.inputs.items([text], modality)[0]
    raise Refused(400, "'text' or 'upload' must be a string.")


def _weights(body: dict[str, Any], count: int) -> list[float]:
    weights = _listed(body, "weights", _QUERIES) or [1.0] * count
    if len(weights) != count or not all(_number(w) and 0 < abs(w) <= 100 for w in weights):
        raise Refused(400, "'weights' must be as many numbers as there are queries, not 0.")
    return [float(weight) for weight in weights]


def _main(modalities: Sequence[str], weights: Sequence[float], gallery: Gallery) -> str:
    """The modality as which a combined query is scored: the heaviest of those that the index
    serves."""
    served = tuple(gallery.collection.query_modalities)
    heavy: dict[str, float] = {}
    for modality, weight in zip(modalities, weights, strict=True):
        if modality in served:
            heavy[modality] = heavy.get(modality, 0.0) + abs(weight)
    return max(heavy, key=lambda one: heavy[one]) if heavy else served[0]


def _polygon(given: Any) -> np.ndarray | None:
    if given is None:
        return None
    fine = isinstance(given, list) and 3 <= len(given) <= _CORNERS
    if not fine or not all(
        isinstance(p, list) and len(p) == 2 and all(map(_number, p)) for p in given
    ):
        raise Refused(400, f"'within' must be 3 to {_CORNERS} points [x, y].")
    return np.array(given, float)


def _listed(body: dict[str, Any], name: str, most: int | None = None) -> list[Any]:
    value = body.get(name)
    value = [] if value is None else value
    if not isinstance(value, list) or (most is not None and len(value) > most):
        raise Refused(400, f"'{name}' must be a list{f' of {most} at most' if most else ''}.")
    return value


def _whole(body: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = body.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise Refused(400, f"'{name}' must be a whole number from {least} to {most}.")
    return value


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)


# -- records, facets, map ------------------------------------------------------------------------


async def item(request: Request) -> Response:
    """GET: the record of a key."""
    state, gallery, key = state_of(request), gallery_of(request), key_of(request)
    found = await state.workers.run(gallery.records, [key])
    if not found:
        raise Refused(404, "The collection has no item of this key.")
    return reply(found[0])


async def items(request: Request) -> Response:
    """GET: the records of `?keys=a,b`."""
    state, gallery = state_of(request), gallery_of(request)
    keys = [checked_key(key) for key in request.query_params.get("keys", "").split(",") if key]
    if len(keys) > state.settings.limits.hits:
        raise Refused(413, f"At most {state.settings.limits.hits} keys can be asked for at once.")
    return reply(await state.workers.run(gallery.records, keys))


async def facets(request: Request) -> Response:
    """GET: how many items have each value of `?column=`, of those that pass `&where=` and are of
    the modality `&to=`."""
    state, gallery = state_of(request), gallery_of(request)
    column = _known_column(request, gallery)
    where, to = (request.query_params.get(name) or None for name in ("where", "to"))
    _check_target(to, gallery)
    return reply(await state.workers.run(gallery.facets, column, where, to))


async def points(request: Request) -> Response:
    """GET: the map, as little-endian float32 pairs."""
    state, gallery = state_of(request), gallery_of(request)
    data = await state.workers.run(lambda: gallery.now.points.tobytes())
    return Response(data, media_type="application/octet-stream")


async def point_keys(request: Request) -> Response:
    """GET: keys in the order of the map; `?offset=&count=`."""
    state, gallery = state_of(request), gallery_of(request)
    given = dict(request.query_params)
    if not all(given.get(name, "0").isdecimal() for name in ("offset", "count")):
        raise Refused(400, "'offset' and 'count' must be whole numbers.")
    start, count = int(given.get("offset", "0")[:12]), int(given.get("count", f"{_PAGE}")[:12])
    keys = await state.workers.run(lambda: gallery.now.keys[start : start + min(count, _PAGE)])
    return await state.workers.run(reply, keys)


async def colours(request: Request) -> Response:
    """GET: classes of `?column=`, and that of each item in the order of the map."""
    state, gallery = state_of(request), gallery_of(request)
    column = _known_column(request, gallery, "modality")
    found = await state.workers.run(lambda: gallery.now.colours(column))
    return await state.workers.run(reply, found)


def _known_column(request: Request, gallery: Gallery, *further: str) -> str:
    column = request.query_params.get("column", "")
    if column not in gallery.collection.columns and column not in further:
        own = ", ".join(gallery.collection.columns) or "none"
        raise Refused(404, "The collection has no such column.", f"It has {own}.")
    return column
