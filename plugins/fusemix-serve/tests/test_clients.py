"""Clients that know nothing of fusemix, unchanged, against a started server."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from serve_client import ask, data_uri, image_bytes, sound_bytes

TEXTS = ["a red car", "a blue house", "a green tree"]


@pytest.fixture(scope="module")
def wanted(models):
    return models["photos"].encode("text", TEXTS).numpy()


@pytest.fixture(scope="module")
def openai_client(server):
    import openai

    return openai.OpenAI(api_key="unused", base_url=f"{server}/v1", max_retries=0)


@pytest.fixture(scope="module")
def cohere_client(server):
    import cohere

    return cohere.ClientV2(api_key="unused", base_url=server)


def test_openai_gets_the_model_s_own_embeddings(openai_client, wanted):
    answer = openai_client.embeddings.create(model="photos", input=TEXTS)
    assert [one.index for one in answer.data] == [0, 1, 2] and answer.model == "photos"
    found = np.array([one.embedding for one in answer.data], np.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_openai_in_floats_and_of_one_string(openai_client, wanted):
    answer = openai_client.embeddings.create(
        model="photos", input=TEXTS[0], encoding_format="float"
    )
    np.testing.assert_allclose(answer.data[0].embedding, wanted[0], atol=1e-6)


def test_openai_with_fewer_dimensions(openai_client, wanted):
    answer = openai_client.embeddings.create(model="photos", input=TEXTS, dimensions=3)
    found = np.array([one.embedding for one in answer.data])
    prefix = wanted[:, :3] / np.linalg.norm(wanted[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(found, prefix, atol=1e-6)


def test_openai_lists_models_and_reads_errors(openai_client):
    import openai

    assert [one.id for one in openai_client.models.list()] == ["photos", "things"]
    assert openai_client.models.retrieve("photos").id == "photos"
    with pytest.raises(openai.NotFoundError, match="There is no embedding model named 'gpt'"):
        openai_client.embeddings.create(model="gpt", input="a")
    with pytest.raises(openai.BadRequestError, match="numbers of tokens"):
        openai_client.embeddings.create(model="photos", input=[1, 2, 3])
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        openai_client.embeddings.create(model="photos", input="a", dimensions=100_000)


def test_cohere_gets_texts_in_all_types(cohere_client, wanted):
    answer = cohere_client.embed(
        model="photos",
        input_type="search_query",
        texts=TEXTS,
        embedding_types=["float", "int8", "uint8", "binary", "ubinary", "base64"],
    )
    found = answer.embeddings
    np.testing.assert_allclose(found.float_, wanted, atol=1e-6)
    whole = np.array(found.int8, float)
    cosines = (whole * wanted).sum(axis=1) / np.linalg.norm(whole, axis=1)
    assert (cosines > 0.999).all() and np.abs(whole).max() == 127
    assert (np.array(found.uint8) - 128 == whole).all()
    signs = np.unpackbits(np.array(found.ubinary, np.uint8), axis=1)[:, : wanted.shape[1]]
    assert (signs == (wanted > 0)).all()
    assert (np.array(found.binary) + 128 == np.array(found.ubinary)).all()


def test_cohere_gets_images_and_mixed_inputs(cohere_client, models):
    image = image_bytes()
    uri = data_uri(image, "image/png")
    model = models["photos"]
    picture, text = model.encode("image", [image])[0], model.encode("text", ["a red car"])[0]
    answer = cohere_client.embed(
        model="photos", input_type="image", images=[uri], embedding_types=["float"]
    )
    np.testing.assert_allclose(answer.embeddings.float_[0], picture.numpy(), atol=1e-6)
    content = [
        {"type": "text", "text": "a red car"},
        {"type": "image_url", "image_url": {"url": uri}},
    ]
    answer = cohere_client.embed(
        model="photos",
        input_type="search_document",
        inputs=[{"content": content[:1]}, {"content": content}],
        embedding_types=["float"],
    )
    both = torch.nn.functional.normalize(picture + text, dim=0)
    np.testing.assert_allclose(answer.embeddings.float_[0], text.numpy(), atol=1e-6)
    np.testing.assert_allclose(answer.embeddings.float_[1], both.numpy(), atol=1e-5)


def test_cohere_reranks_by_the_model_s_scores(cohere_client, models):
    model = models["photos"]
    answer = cohere_client.rerank(model="photos", query="a red car", documents=TEXTS, top_n=2)
    rows = model.encode("text", ["a red car", *TEXTS])
    scores = model.similarity(rows[:1], rows[1:], "text", "text")[0]
    order = scores.argsort(descending=True).tolist()
    assert [one.index for one in answer.results] == order[:2] and order[0] == 0
    assert answer.results[0].relevance_score == pytest.approx(float(scores[0]), abs=1e-5)


def test_cohere_reads_errors(cohere_client):
    import cohere

    with pytest.raises(cohere.NotFoundError) as caught:
        cohere_client.embed(
            model="embed-v4", input_type="image", texts=["a"], embedding_types=["float"]
        )
    assert "photos" in caught.value.body["error"]["hint"]


def test_jina_s_form_mixes_texts_images_and_sounds(server, models):
    image, sound = image_bytes(), sound_bytes()
    given = [
        {"text": "a red car"},
        {"image": data_uri(image, "image/png")},
        {"audio": data_uri(sound, "audio/wav")},
        "a blue house",
    ]
    answer = ask(f"{server}/v1/embeddings", {"model": "photos", "input": given})
    assert answer.status == 200
    found = np.array([one["embedding"] for one in answer.json["data"]])
    model = models["photos"]
    wanted = torch.cat(
        [
            model.encode("text", ["a red car"]),
            model.encode("image", [image]),
            model.encode("audio", [sound]),
            model.encode("text", ["a blue house"]),
        ]
    )
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings"])
def test_infinity_s_form_names_the_modality_of_strings(server, models, path):
    image = image_bytes()
    body = {"model": "photos", "modality": "image", "input": [data_uri(image, "image/png")]}
    answer = ask(f"{server}{path}", body | {"encoding_format": "base64"})
    import base64

    found = np.frombuffer(base64.b64decode(answer.json["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(found, models["photos"].encode("image", [image])[0], atol=1e-6)


def test_input_type_gives_vectors_whose_inner_product_ranks_as_the_model_does(server, models):
    def vectors(items, side):
        body = {"model": "photos", "input": items, "input_type": side}
        rows = ask(f"{server}/v1/embeddings", body).json["data"]
        return torch.tensor([row["embedding"] for row in rows])

    colours = [(220, 30, 30), (30, 200, 40), (30, 40, 220), (240, 240, 240), (15, 15, 15)]
    images = [image_bytes(colour) for colour in colours]
    gallery = vectors([{"image": data_uri(one, "image/png")} for one in images], "document")
    queries = vectors(TEXTS, "query")
    model = models["photos"]
    scores = model.similarity(
        model.encode("text", TEXTS), model.encode("image", images), "text", "image"
    )
    order = (queries @ gallery.T).argsort(dim=1, descending=True)
    assert torch.equal(order, scores.argsort(dim=1, descending=True))


def test_score_compares_one_with_many_and_pair_by_pair(server, models):
    model = models["photos"]
    image = image_bytes()
    uri = data_uri(image, "image/png")
    body = {"model": "photos", "text_1": "a red car", "text_2": [{"image": uri}, "a blue house"]}
    answer = ask(f"{server}/v1/score", body)
    rows = model.encode("text", ["a red car", "a blue house"])
    first = model.similarity(rows[:1], model.encode("image", [image]), "text", "image")
    second = model.similarity(rows[:1], rows[1:], "text", "text")
    found = [one["score"] for one in answer.json["data"]]
    assert found == pytest.approx([float(first), float(second)], abs=1e-5)
    body = {"model": "photos", "queries": TEXTS, "documents": TEXTS}
    paired = ask(f"{server}/v1/score", body).json["data"]
    assert len(paired) == 3
    body = {"model": "photos", "queries": TEXTS[:2], "documents": TEXTS}
    assert ask(f"{server}/v1/score", body).status == 400


def test_rerank_takes_images_and_returns_documents(server):
    uris = [data_uri(image_bytes(c), "image/png") for c in ((30, 40, 220), (220, 30, 30))]
    body = {
        "query": "a red car",
        "documents": [{"image": uri} for uri in uris],
        "return_documents": True,
    }
    answer = ask(f"{server}/v1/rerank", body)
    scores = [one["relevance_score"] for one in answer.json["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(o["document"] == {"image": uris[o["index"]]} for o in answer.json["results"])


def test_predict_gives_the_predictor_s_columns(server, models):
    image = image_bytes()
    uri = data_uri(image, "image/png")
    rows = [{"text": "a red car", "image": uri}, {"text": "a blue house"}, {"image": uri}]
    answer = ask(f"{server}/v1/predict", {"rows": rows})
    assert answer.status == 200 and answer.json["model"] == "things"
    items = {"text": ["a red car", "a blue house", None], "image": [image, None, image]}
    wanted = models["things"].predict(items)
    found = answer.json["data"]
    assert [one["prediction"] for one in found] == wanted
    assert sorted(found[1]["modalities"].split(" + ")) == ["text"]
    likely = models["things"].predict_proba(items)
    columns = models["things"].task.columns
    given = [[one[f"probability_{c}"] for c in columns] for one in found]
    np.testing.assert_allclose(given, likely, atol=1e-5)


def test_predict_names_a_field_that_it_does_not_have(server):
    answer = ask(f"{server}/v1/predict", {"rows": [{"text": "a"}], "k": 1})
    assert answer.status == 400
    assert answer.json["message"] == "There is no field 'k' in a request for predictions."
    assert answer.json["error"]["hint"] == "Its fields are rows, model."


def test_health_info_and_metrics(server):
    assert ask(f"{server}/health").json == {"status": "ok"}
    found = ask(f"{server}/info").json
    assert found["limits"]["texts"] == 2048
    assert [m["id"] for m in found["models"]] == ["photos", "things"]
    assert found["models"][0]["modalities"] == {"image": "image", "text": "text", "audio": "audio"}
    ask(f"{server}/v1/embeddings", {"input": "a"})
    text = ask(f"{server}/metrics")
    assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in text.body.decode().splitlines() if line[0] != "#")
    label = '{route="/v1/embeddings",status="200"}'
    assert int(lines[f"fusemix_requests_total{label}"]) >= 1
    assert int(lines['fusemix_encoded_items_total{modality="text"}']) >= 1
    assert int(lines["fusemix_in_flight"]) == 1
