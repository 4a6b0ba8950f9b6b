"""`rerank` in a search: the server's re-ranker orders the results of one query anew."""

from __future__ import annotations

import pytest
import torch
from fusemix_serve import create_app
from small_collection import SmallCollection
from starlette.testclient import TestClient

from fusemix_core.interfaces import Reranker
from fusemix_core.registry import registry
from fusemix_core.reranked import RerankModel
from fusemix_core.runs.candidates import Reranking
from fusemix_core.saved.identity import identity


class Brightness(Reranker):
    """Likes images by the sum of their latents."""

    def forward(self, latents):
        return latents["image"].filled().sum(dim=(1, 2))


@pytest.fixture(scope="module")
def reranking(models):
    model = models["photos"]
    encoders = {m: model.encoders[m] for m in ("image", "text")}
    network = Brightness({m: info.dim for m, info in encoders.items()})
    registry.add_component("reranker", "brightness", Brightness)
    sources = {m: model.encoder(m).spec for m in encoders}
    weights = {"text->image": 100.0, "image->text": 0.0}
    fused = identity(model, list(encoders))
    made = RerankModel(
        encoders, network, top_k=8, weights=weights, fused=fused, sources=sources, device="cpu"
    )
    made.check(model)
    return Reranking(made)


@pytest.fixture(scope="module")
def ask(models, index, reranking):
    collection = SmallCollection.open(index, models["photos"])
    app = create_app(collection, {}, name="photos", reranking=reranking)
    with TestClient(app, base_url="http://localhost") as client:

        def ask(*queries, status=200, **more):
            given = {"queries": list(queries), "to": "image", "k": 12, **more}
            answer = client.post("/api/search", json=given)
            assert answer.status_code == status, answer.text
            return answer.json()

        ask.client = client
        yield ask


RED = {"modality": "text", "text": "a red car"}


def test_the_first_results_of_one_query_are_ranked_anew(ask, models, reranking):
    plain = [hit["key"] for hit in ask(RED, rerank=False)["hits"]]
    found = ask(RED)["hits"]
    keys = [hit["key"] for hit in found]
    assert set(keys[:8]) == set(plain[:8]) and keys[8:] == plain[8:] and keys != plain
    media = [ask.client.get(f"/media/{key}").content for key in keys[:8]]
    liked = reranking.reranker.tokens("image", media).filled().sum(dim=(1, 2))
    assert torch.equal(liked.argsort(descending=True), torch.arange(8))
    assert [hit["key"] for hit in ask(RED, k=3, offset=2)["hits"]] == keys[2:5]
    assert ask.client.get("/api/info").json()["reranks"] == ["text->image"]


def test_what_it_was_not_fitted_to_keeps_its_order(ask):
    first = ask(RED, rerank=False)["hits"][0]
    same = [
        [hit["key"] for hit in ask({"key": first["key"]}, rerank=r)["hits"]] for r in (0 > 1, None)
    ]
    assert same[0] == same[1]


@pytest.mark.parametrize("more", [{"rerank": "yes"}, {"rerank": True, "minus": None}])
def test_a_wish_that_cannot_be_met_is_refused(ask, more):
    if "minus" in more:
        more = {"rerank": True, "minus": [ask(RED)["hits"][0]["key"]]}
    assert "error" in ask(RED, status=400, **more)
