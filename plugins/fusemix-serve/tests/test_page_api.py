"""What the page asks: searches, records, files, facets and the map."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fusemix_serve import Limits, Settings, create_app
from fusemix_serve.searching import _FIELDS
from fusemix_serve.snapshot import inside_polygon
from PIL import Image
from serve_client import image_bytes, png_that_claims, sound_bytes
from small_collection import SmallCollection
from starlette.testclient import TestClient

from fusemix_core.config import DataConfig
from fusemix_core.search import Collection


@pytest.fixture(scope="module")
def collection(models, index):
    return SmallCollection.open(index, models["photos"])


@pytest.fixture(scope="module")
def client(collection):
    app = create_app(collection, {}, Settings(limits=Limits(hits=50)), name="photos")
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.fixture
def search(client):
    def search(*queries, status=200, **more):
        answer = client.post("/api/search", json={"queries": list(queries), **more})
        assert answer.status_code == status, answer.text
        return answer.json()

    return search


def text(words):
    return {"modality": "text", "text": words}


def upload(client, data, modality="image"):
    answer = client.post(f"/api/uploads?modality={modality}", content=data)
    assert answer.status_code == 201, answer.text
    return {"modality": modality, "upload": answer.json()["upload"]}


def test_info_describes_the_collection(client, collection):
    found = client.get("/api/info").json()
    assert found["count"] == len(collection) and found["name"] == "photos" and found["has_map"]
    assert {"name": "audio", "takes": "audio"} in found["query"]
    assert [m["name"] for m in found["modalities"]] == ["image", "text"]
    columns = {column["name"]: column for column in found["columns"]}
    assert (columns["year"]["min"], columns["year"]["max"]) == (1900, 1963)
    assert {"value": "car", "count": 16} in columns["thing"]["values"]
    assert "values" not in columns["text"]  # nearly every one is different


def test_a_text_finds_what_the_collection_finds(search, collection, models):
    found = search(text("a red car"), to="image", k=5)
    vector = models["photos"].encode("text", ["a red car"])[0]
    wanted = collection.search(vector, "text", count=5, target="image")
    assert [hit["key"] for hit in found["hits"]] == [one.key for one in wanted]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([o.score for o in wanted])
    hit = found["hits"][0]
    assert hit["thumb"] == f"/thumb/{hit['key']}" and hit["media"] == f"/media/{hit['key']}"
    assert hit["item"].endswith(".png") and "/" not in hit["item"]
    assert hit["text"] == hit["columns"]["text"] and 0 <= hit["percentile"] <= 100
    assert collection.keys[hit["at"]] == hit["key"]
    assert found["took_ms"] > 0


def test_a_text_item_is_its_text_and_has_no_file(search):
    hit = search(text("a red car"), to="text", k=1)["hits"][0]
    assert hit["text"] == hit["item"] and hit["thumb"] is None and hit["media"] is None


def test_uploaded_images_and_sounds_are_queries(client, search, collection, models):
    image, sound = image_bytes(), sound_bytes(pitch=700)
    for modality, data in (("image", image), ("audio", sound)):
        found = search(upload(client, data, modality), to="text", k=3)
        vector = models["photos"].encode(modality, [data])[0]
        wanted = collection.search(vector, modality, count=3, target="text")
        assert [hit["key"] for hit in found["hits"]] == [one.key for one in wanted]
    assert upload(client, image) == upload(client, image)


def test_a_forgotten_upload_says_so(search):
    found = search({"modality": "image", "upload": "0" * 32}, status=404)
    assert found["error"]["code"] == "upload_gone"


def test_uploads_are_checked_as_all_items_are(client):
    for data, status in ((b"<svg/>", 415), (png_that_claims(50_000, 50_000), 413), (b"", 415)):
        assert client.post("/api/uploads?modality=image", content=data).status_code == status
    for modality in ("text", "", "../etc"):
        answer = client.post(f"/api/uploads?modality={modality}", content=image_bytes())
        assert answer.status_code in (400, 415)


def test_more_like_this_leaves_the_item_itself_out(search, collection):
    key = collection.keys[0]
    found = search({"key": key}, to="image", k=50)
    assert key not in [hit["key"] for hit in found["hits"]]


def test_queries_are_combined_by_their_weights(search, collection, models):
    words = ["a red car", "a blue house"]
    rows = models["photos"].encode("text", words)
    for weights in ([1.0, 0.01], [1.0, 3.0]):
        mixed = torch.nn.functional.normalize((rows * torch.tensor(weights)[:, None]).sum(0), dim=0)
        wanted = collection.search(mixed, "text", count=10, target="image")
        found = search(*map(text, words), weights=weights, k=10, to="image")
        assert [hit["key"] for hit in found["hits"]] == [one.key for one in wanted]


def test_minus_moves_away_from_what_it_names_and_excludes_it(search, collection):
    first = search(text("a red car"), to="image", k=1)["hits"][0]
    minus = search(text("a red car"), to="image", k=50, minus=[first["key"]])["hits"]
    assert first["key"] not in [hit["key"] for hit in minus]
    rows = collection.rows
    away = rows[collection.places[first["key"]]]
    plain = search(text("a red car"), to="image", k=20)["hits"][1:11]

    def nearness(hits):
        return float((rows[[collection.places[h["key"]] for h in hits]] @ away).mean())

    assert nearness(minus[:10]) < nearness(plain)


def test_the_scores_follow_the_filters(search, collection):
    found = search(text("a red car"), where="thing = 'house'", k=50)
    assert found["hits"] and {hit["columns"]["thing"] for hit in found["hits"]} == {"house"}
    assert found["total"] == dict(collection.facets("thing"))["house"]
    refused = search(text("a"), where="thing = 'house'; DROP TABLE items", status=400)
    assert "condition" in refused["error"]["message"]


def test_the_total_counts_only_the_modality_that_is_searched(search, collection):
    images = (collection.overview().values("modality")).count("image")
    assert search(text("a red car"), to="image", k=2)["total"] == images
    assert search(text("a red car"), k=2)["total"] == len(collection)


def test_min_percentile_cuts_off(search):
    every = search(text("a red car"), k=50)["hits"]
    cut = search(text("a red car"), k=50, min_percentile=90)
    assert [h["key"] for h in cut["hits"]] == [h["key"] for h in every if h["percentile"] >= 90]
    assert cut["total"] == len(cut["hits"]) < len(every)


def test_near_duplicates_are_folded_into_the_best_of_them(search, collection):
    copies = {r.key for r in collection.records if "copy" in r.item} | {collection.keys[0]}
    found = search(text("a red car"), to="image", k=50, group_duplicates=True)
    groups = [{hit["key"], *hit["duplicates"]} for hit in found["hits"]]
    assert sum(copies <= group for group in groups) == 1  # the same pixels, together
    assert sorted(key for group in groups for key in group) == sorted(
        r.key for r in collection.records if r.modality == "image"
    )
    rows = collection.vectors([hit["key"] for hit in found["hits"]])
    cosines = (rows @ rows.T).fill_diagonal_(0)
    assert float(cosines.max()) < 0.985 and found["total"] == len(groups)
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    by_key = {h["key"]: h["score"] for h in search(text("a red car"), to="image", k=50)["hits"]}
    for hit in found["hits"]:
        assert all(by_key.get(key, -9) <= hit["score"] for key in hit["duplicates"])


def test_pages_of_a_search_join_without_gaps(search):
    for fold in (False, True):
        how = {"to": "image", "group_duplicates": fold}
        whole = search(text("a red car"), k=30, **how)["hits"]
        pages = [search(text("a red car"), k=10, offset=o, **how)["hits"] for o in (0, 10, 20)]
        assert [h["key"] for page in pages for h in page] == [h["key"] for h in whole]


def test_why_explains_the_score(search, models):
    model = models["photos"]
    hit = search(text("a red car"), to="image", k=1)["hits"][0]
    why = hit["why"]
    assert 0 < why["cosine"] <= 1 and len(why["dims"]) == 3
    shares = [one["share"] for one in why["dims"]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1 + 1e-6
    if model.scorer_name == "csls":
        # The score is 2 cos - r(q) - r(g), and r(q) is the same for all.
        more = search(text("a red car"), to="image", k=5)["hits"]
        rest = [h["score"] - 2 * h["why"]["cosine"] + h["why"]["hubness"] for h in more]
        assert rest == pytest.approx([rest[0]] * 5, abs=1e-5)


def test_several_modalities_are_merged_by_percentile(search, collection):
    hits = search(text("a red car"), k=50)["hits"]
    assert {hit["modality"] for hit in hits} == {"image", "text"}
    percentiles = [hit["percentile"] for hit in hits]
    assert percentiles == sorted(percentiles, reverse=True)
    for to in ("image", "text"):
        own = [h["key"] for h in search(text("a red car"), k=50, to=to)["hits"]]
        shared = [h["key"] for h in hits if h["modality"] == to]
        assert own[: len(shared)] == shared


def test_an_updated_collection_is_read_again(models, world, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    colours = [(220, 30, 30), (30, 40, 220), (30, 200, 40)]
    for i, colour in enumerate(colours):
        (folder / f"{i}.png").write_bytes(image_bytes(colour))
    data = DataConfig(source=(str(folder),), max_bad=1.0)
    made = Collection.create(tmp_path / "index", models["photos"], data, to=("image",))
    with TestClient(create_app(made, {}), base_url="http://localhost") as client:
        assert len(client.get("/api/map/keys").json()) == 3
        (folder / "3.png").write_bytes(image_bytes((240, 240, 240)))
        (folder / "0.png").unlink()
        (folder / "1.png").unlink()
        Collection.open(tmp_path / "index", models["photos"]).update()
        keys = client.get("/api/map/keys").json()
        assert len(keys) == 2 and len(client.get("/api/map").content) == 16
        found = client.post("/api/search", json={"queries": [text("white")]}).json()
        assert {hit["key"] for hit in found["hits"]} == set(keys)


def test_no_query_browses_in_the_order_of_the_collection(search, collection):
    found = search(k=5, offset=3)
    assert [hit["key"] for hit in found["hits"]] == collection.keys[3:8]
    assert found["total"] == len(collection)
    assert found["hits"][0]["score"] is None and found["hits"][0]["why"] is None
    texts = search(k=50, to="text", where="thing = 'car'")
    assert {hit["modality"] for hit in texts["hits"]} == {"text"} and texts["total"] == 8


def test_a_lasso_keeps_what_is_inside(search, collection):
    x = collection.map()[1][:, 0]
    middle = float(np.median(x))
    left = [[-2, -2], [middle, -2], [middle, 2], [-2, 2]]
    inside = {key for key, at in zip(collection.keys, x, strict=True) if at < middle}
    browsed = search(k=50, within=left)
    assert browsed["total"] == len(inside)
    found = search(text("a red car"), k=50, within=left)
    assert {hit["key"] for hit in found["hits"]} <= inside and len(found["hits"]) == 50
    assert found["total"] == len(inside)
    plain = [h["key"] for h in search(text("a red car"), k=50)["hits"] if h["key"] in inside]
    assert [hit["key"] for hit in found["hits"]][: len(plain)] == plain


def test_inside_a_polygon_that_is_not_convex():
    corners = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]], float)
    points = np.array([[2, 0.5], [2, 2], [0.5, 2], [3.5, 2], [5, 1], [-1, 0.5]])
    assert inside_polygon(points, corners).tolist() == [True, False, True, True, False, False]


@pytest.mark.parametrize(
    "body",
    [
        {"queries": "a"}, {"queries": ["a"]}, {"queries": [{}]}, {"queries": [{"text": 5}]},
        {"queries": [{"key": "../../etc/passwd"}]}, {"queries": [{"key": "0" * 32}]},
        {"queries": [{"modality": 5, "text": "a"}]}, {"queries": [{"modality": "x", "text": "a"}]},
        {"queries": [{"upload": "../../etc/passwd"}]}, {"queries": [{"text": "a"}] * 17},
        {"queries": [{"modality": "image", "text": "/etc/passwd"}]},
        {"queries": [{"text": "a"}], "weights": [1, 2]},
        {"queries": [{"text": "a"}], "weights": ["1"]},
        {"queries": [{"text": "a"}], "weights": [1e400]},
        {"queries": [{"text": "a"}], "weights": [0]},
        {"queries": [{"text": "a"}], "minus": ["a"]}, {"minus": ["0" * 32]}, {"minus": "a"},
        {"to": "audio"}, {"to": ["image"]}, {"where": 5}, {"where": "a" * 20_000},
        {"k": 0}, {"k": 51}, {"k": True}, {"k": "5"}, {"offset": -1}, {"offset": 10**12},
        {"queries": [{"text": "a"}], "offset": 2001}, {"min_percentile": 101},
        {"min_percentile": "a"}, {"group_duplicates": 1}, {"within": []}, {"within": "a"},
        {"within": [[0, 0]] * 65}, {"within": [[0, 0], [1, 1], [2]]},
        {"within": [[0, 0], [1, 1], [2, True]]}, {"within": [[0, 0], [1, 1], [2, 1e400]]},
    ],
)  # fmt: skip
def test_wrong_searches_are_refused(client, body):
    raw = json.dumps(body).replace("Infinity", "1e400")
    answer = client.post("/api/search", content=raw, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert "root:" not in answer.text and "/tmp" not in answer.text


@pytest.mark.parametrize("name", ["query", "count", "filter"])
def test_a_field_that_a_search_does_not_have_is_named(client, search, name):
    told = search(text("a red car"), status=400, **{name: "a red car"})["error"]
    assert told["message"] == f"There is no field '{name}' in a search."
    assert told["hint"].startswith("Its fields are queries, weights, minus, to, k, ")
    told = client.post("/api/search", json={"queries": [{"text": "a", name: 1}]}).json()["error"]
    assert told["message"] == f"There is no field '{name}' in a query."
    assert told["hint"] == "Its fields are text, upload, key, modality."


def test_the_search_of_the_guide_works_as_typed(client, search):
    guide = Path(__file__).parents[3] / "docs/how-to/serve.md"
    (command,) = re.findall(r"^curl \S+/api/search.*?[^\\]$", guide.read_text(), re.M | re.S)
    words = shlex.split(command.replace("\\\n", " "))
    path, kind, body = words[1].removeprefix("http://127.0.0.1:8080"), words[3], words[5]
    found = client.post(path, content=body, headers=dict([kind.split(": ")])).json()
    assert len(found["hits"]) == 3 and {hit["modality"] for hit in found["hits"]} == {"image"}
    assert found["hits"] == search(text("a red bicycle"), to="image", k=3)["hits"]
    rows = guide.read_text().partition("## Search an index")[2].partition("\n## ")[0]
    first = " ".join(re.findall(r"^\|([^|]+)\|", rows, re.M))
    assert set(re.findall(r"`(\w+)`", first)) == {*_FIELDS, *found, *found["hits"][0]}


def test_a_query_is_one_thing(client, search, collection):
    both = {"key": collection.keys[0], "text": "a red car"}
    assert "one of" in search(both, status=400)["error"]["message"]


def test_records_come_by_key_in_the_order_asked(client, collection):
    keys = collection.keys[:3][::-1]
    found = client.get("/api/items", params={"keys": ",".join([*keys, "0" * 32])}).json()
    assert [one["key"] for one in found] == keys and "/" not in json.dumps(
        [o["item"] for o in found]
    )
    assert client.get(f"/api/items/{keys[0]}").json() == found[0]
    assert client.get(f"/api/items/{'0' * 32}").status_code == 404
    many = ",".join(["0" * 32] * 51)
    assert client.get("/api/items", params={"keys": many}).status_code == 413


def test_thumbnails_are_small_and_media_are_whole(client, collection):
    record = next(r for r in collection.records if r.modality == "image")
    answer = client.get(f"/thumb/{record.key}")
    assert answer.headers["Content-Type"] == "image/webp"
    assert max(Image.open(io.BytesIO(answer.content)).size) <= 256
    assert client.get(f"/thumb/{record.key}").content == answer.content  # from memory
    whole = client.get(f"/media/{record.key}")
    assert whole.content == collection.media(record.key).read_bytes()
    assert whole.headers["Content-Type"] == "image/png"
    assert "sandbox" in whole.headers["Content-Security-Policy"]
    assert "immutable" in whole.headers["Cache-Control"]
    part = client.get(f"/media/{record.key}", headers={"Range": "bytes=0-3"})
    assert part.status_code == 206 and part.content == b"\x89PNG"
    text = next(r for r in collection.records if r.modality == "text")
    assert client.get(f"/thumb/{text.key}").status_code == 404
    answer = client.get(f"/media/{text.key}")
    assert answer.text == text.item and answer.headers["Content-Type"].startswith("text/plain")


def test_a_file_that_can_run_scripts_is_only_downloaded(client, collection, monkeypatch, tmp_path):
    page = tmp_path / "a.svg"
    page.write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    key = collection.keys[0]
    place = collection.places[key]
    monkeypatch.setattr(collection, "media", lambda _: page)
    for name in ("a.svg", "a.html", "a.xml", "a.pdf", "a"):
        record = replace(collection.records[place], item=f"/x/{name}")
        monkeypatch.setattr(collection, "items", lambda _, one=record: [one])
        answer = client.get(f"/media/{key}")
        assert answer.headers["Content-Type"] == "application/octet-stream", name
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_file_that_has_vanished_is_not_found(client, collection, monkeypatch, tmp_path):
    key = collection.keys[2]
    monkeypatch.setattr(collection, "media", lambda _: tmp_path / "gone.png")
    for path in (f"/media/{key}", f"/thumb/{key}"):
        answer = client.get(path)
        assert answer.status_code == 404 and "gone.png" not in answer.text


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "0" * 31, "A" * 32, "%00"]
)
@pytest.mark.parametrize("path", ["/media", "/thumb", "/api/items"])
def test_what_is_no_key_is_not_found(client, path, key):
    answer = client.get(f"{path}/{key}")
    assert answer.status_code == 404 and "root:" not in answer.text


def test_facets_count_values_and_follow_a_filter(client, collection):
    found = client.get("/api/facets", params={"column": "thing"}).json()
    assert {"value": "car", "count": 16} in found
    assert found[0]["count"] == max(one["count"] for one in found)
    only = client.get("/api/facets", params={"column": "thing", "where": "thing = 'car'"}).json()
    assert only == [{"value": "car", "count": 16}]
    images = {"column": "thing", "to": "image"}
    counted = {o["value"]: o["count"] for o in client.get("/api/facets", params=images).json()}
    own = [r for r in collection.records if r.modality == "image"]
    assert counted == Counter(r.columns["thing"] for r in own) and counted["copy"] == 2
    both = client.get("/api/facets", params=images | {"where": "thing = 'car'"}).json()
    assert both == [{"value": "car", "count": counted["car"]}]
    assert client.get("/api/facets", params=images | {"to": "smell"}).status_code == 400
    assert client.get("/api/facets", params={"column": "secret"}).status_code == 404


def test_the_places_of_all_results_on_the_map(search, collection):
    passing = {r.key for r in collection.records if r.columns["thing"] == "car"}
    found = search(where="thing = 'car'", k=2, places=True)
    assert {collection.keys[at] for at in found["places"]} == passing and len(found["hits"]) == 2
    whole = search(text("a red car"), to="image", k=50, min_percentile=60)
    part = search(text("a red car"), to="image", k=1, min_percentile=60, places=True)
    keys = [hit["key"] for hit in whole["hits"]]
    assert 1 < len(keys) < 50 and [collection.keys[at] for at in part["places"]] == keys
    for asked in ({"k": 2}, {"k": 2, "to": "image"}):  # all items: nothing to mark
        assert search(**asked, places=True)["places"] is None
    assert search(text("a"), places=True)["places"] is None
    search(text("a"), places="yes", status=400)


def test_the_map_has_a_point_a_key_and_a_colour_of_every_item(client, collection):
    points = np.frombuffer(client.get("/api/map").content, "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(points, collection.map()[1])
    keys = client.get("/api/map/keys", params={"offset": 0, "count": 100}).json()
    keys += client.get("/api/map/keys", params={"offset": 100}).json()
    assert keys == collection.keys
    for bad in ({"offset": "-1"}, {"count": "a"}, {"offset": "1e3"}):
        assert client.get("/api/map/keys", params=bad).status_code == 400
    colours = client.get("/api/map/colours", params={"column": "modality"}).json()
    named = [colours["names"][i] for i in colours["of"]]
    assert named == [r.modality for r in collection.records]
    things = client.get("/api/map/colours", params={"column": "thing"}).json()
    assert len(things["names"]) == 8 and things["names"][-1] == "other"
    years = client.get("/api/map/colours", params={"column": "year"}).json()
    assert len(years["of"]) == len(collection) and years["names"][-1] == "(empty)"
    low, high = years["names"][0].split("–")
    assert years["of"][0] == 0 and float(low) == 1900 <= float(high)


def test_without_a_collection_the_page_s_questions_are_not_found(models):
    app = create_app(None, {"photos": models["photos"]})
    with TestClient(app, base_url="http://localhost") as client:
        for path in ("/api/info", "/api/map", f"/media/{'0' * 32}", "/api/facets?column=a"):
            answer = client.get(path)
            assert answer.status_code == 404 and "no collection" in answer.text


def test_the_collection_s_model_is_served_too(client):
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["photos"]
    answer = client.post("/v1/embeddings", json={"input": "a"})
    assert answer.status_code == 200
