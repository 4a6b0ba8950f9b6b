"""fusemix-api against a server on this machine: requests, faults, keys, the contract."""

from __future__ import annotations

import io
import logging
import pickle
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import fusemix_api.client
import pytest
import torch
from fusemix_api import COHERE, OPENAI, PRESETS, resolve
from fusemix_api.client import RATE, retry_after
from fusemix_api.encoder import ApiEncoder
from fusemix_api.tiny import hashed

from fusemix_core.errors import ConfigError, ContractError, FusemixError
from fusemix_core.jobs import encode as job
from fusemix_core.testing import check_encoder
from fusemix_core.testing.worker import collate_in_worker

CPU = torch.device("cpu")
DIM = 8
TEXTS = ["a dog", "two cats on a sofa", "naïve café", "日本語の文", "🙂", "x" * 300]


def load(server, **changes) -> ApiEncoder:
    spec = replace(resolve(f"{server.url}#m"), **changes)
    return ApiEncoder.load(spec, CPU, torch.float32)


def encode(encoder, texts=TEXTS) -> torch.Tensor:
    return encoder.encode(encoder.collate(texts))


def expected(texts=TEXTS, dim=DIM) -> torch.Tensor:
    return torch.tensor([hashed(t, dim) for t in texts])


def refuse(status, content, headers=None):
    return lambda handler, body: handler.answer(status, content, headers)


# -- the request and the answer --------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_latents_are_the_servers_in_the_order_of_the_texts(server, encoding):
    got = encode(load(server, options={"encoding": encoding}))
    torch.testing.assert_close(got, expected())
    assert got.dtype == torch.float32 and not got.requires_grad
    path, _, body = server.seen[0]
    assert path == "/v1/embeddings"
    assert body == {"model": "m", "input": TEXTS, "encoding_format": encoding}


def test_cohere_style(server):
    spec = replace(resolve(f"cohere+{server.url.removesuffix('/v1')}#m"), max_tokens=50)
    encoder = ApiEncoder.load(spec, CPU, torch.float32)
    torch.testing.assert_close(encode(encoder), expected())
    path, _, body = server.seen[0]
    assert path == "/v2/embed"
    assert body == {
        "model": "m",
        "texts": TEXTS,
        "input_type": "search_document",
        "embedding_types": ["float"],
        "truncate": "END",
    }
    assert encoder.tokens == len(TEXTS) and encoder.truncated(TEXTS) == 1


def test_dimensions_and_prompt_are_sent(server):
    encoder = load(server, dim=4, prompt="query: ", options={"dimensions": 4})
    wanted = expected([f"query: {t}" for t in TEXTS], 4)
    torch.testing.assert_close(encode(encoder), wanted)


def test_an_unknown_option_is_an_error(server):
    with pytest.raises(ConfigError, match="no option 'dimension'"):
        load(server, options={"dimension": 4})


def test_many_texts_go_in_several_requests_at_once(server):
    def slowly(handler, body):
        time.sleep(0.05)
        handler.answer(200, handler.right_answer(body))

    texts = [f"text {i}" for i in range(512)]
    server.faults.extend([slowly] * 8)
    encoder = load(server)
    torch.testing.assert_close(encode(encoder, texts), expected(texts))
    assert len(server.seen) == 8 and server.most_at_once > 2
    assert sorted(server.texts) == sorted(texts)


def test_requests_are_bounded_by_characters(server, monkeypatch):
    monkeypatch.setattr("fusemix_api.encoder.MOST_CHARACTERS", 400)
    encode(load(server), [c * 150 for c in "abcde"])
    assert [len(body["input"]) for _, _, body in server.seen].count(2) == 2


def test_what_was_billed_is_noted(server):
    encoder = load(server, price=1000.0)
    assert encoder.notes() == []
    encode(encoder, ["four", "five!"])
    (note,) = encoder.notes()
    assert "1 requests" in note and "9 tokens" in note and "US$0.0090" in note


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_again(server, status):
    server.faults.extend([refuse(status, b"busy")] * 2)
    torch.testing.assert_close(encode(load(server)), expected())
    assert len(server.seen) == 3


def test_retry_after_is_kept_to(server):
    server.faults.append(refuse(429, {}, {"Retry-After": "0.4"}))
    began = time.monotonic()
    encode(load(server))
    assert 0.4 <= time.monotonic() - began < 5


def test_retry_after_as_number_as_date_and_as_nonsense():
    assert retry_after({"retry-after": "7"}) == 7
    in_a_minute = formatdate(time.time() + 60, usegmt=True)
    assert 57 < retry_after({"retry-after": in_a_minute}) <= 60
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


def test_a_server_that_asks_for_an_hour_is_an_error(server):
    server.faults.append(refuse(429, {"error": "come back later"}, {"Retry-After": "3600"}))
    with pytest.raises(ConfigError, match="come back later") as error:
        encode(load(server))
    assert "run the same command again" in error.value.hint


def test_money_used_up_is_not_tried_again(server):
    said = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    server.faults.append(refuse(429, said))
    with pytest.raises(ConfigError, match="You exceeded your quota"):
        encode(load(server))
    assert len(server.seen) == 1


def test_timeouts_and_broken_connections_are_tried_again(server, monkeypatch):
    monkeypatch.setattr(fusemix_api.client, "TIMEOUT", 0.3)
    server.faults.append(lambda handler, body: time.sleep(0.6))
    server.faults.append(lambda handler, body: handler.connection.close())
    torch.testing.assert_close(encode(load(server)), expected())
    assert len(server.seen) == 3


def test_it_gives_up_in_the_end(server, monkeypatch):
    monkeypatch.setattr(fusemix_api.client, "ATTEMPTS", 3)
    server.faults.extend([refuse(503, b"overloaded")] * 9)
    with pytest.raises(FusemixError, match=r"failed 3 times.*503.*overloaded") as error:
        encode(load(server))
    assert len(server.seen) == 3 and "What was finished is kept" in error.value.hint


def test_delays_grow_to_a_limit():
    from fusemix_api.client import LONGEST_DELAY, _delay

    assert 0.005 <= _delay(0) <= 0.01 and 0.02 <= _delay(2) <= 0.04
    assert _delay(50) <= LONGEST_DELAY


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"error": {"message": "too long"}}, "400 Bad Request: too long"),
        ({"error": "too long"}, "too long"),
        ({"message": "too long"}, "too long"),
        ({"detail": [{"msg": "too long"}]}, "too long"),
        (b"<html>too long</html>", "too long"),
    ],
)
def test_a_refusal_shows_the_servers_message_at_once(server, content, said):
    server.faults.append(refuse(400, content))
    with pytest.raises(ConfigError, match=said):
        encode(load(server))
    assert len(server.seen) == 1


def test_a_wrong_model_or_path_says_where_to_look(server):
    server.faults.append(refuse(404, {"error": "not found"}))
    with pytest.raises(ConfigError) as error:
        encode(load(server))
    assert "'m'" in error.value.hint and "/v1" in error.value.hint


def test_a_redirect_is_not_followed(server):
    server.faults.append(refuse(307, b"", {"Location": "http://127.0.0.1:9/"}))
    with pytest.raises(ConfigError, match="307"):
        encode(load(server))


def test_no_server_there_is_said_at_once():
    encoder = ApiEncoder.load(resolve("http://127.0.0.1:9/v1#m"), CPU, torch.float32)
    began = time.monotonic()
    with pytest.raises(FusemixError, match="can't be reached"):
        encode(encoder)
    assert time.monotonic() - began < 2


ROW = [0.0] * DIM


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"data": []}, "0 embeddings"),
        ({"data": [{"index": 0, "embedding": ROW}]}, "1 embeddings"),
        ({"data": [{"index": i, "embedding": ROW} for i in (0, 2)]}, "indices"),
        ({"data": [{"index": 0, "embedding": ROW}] * 2}, "indices"),
        ({"data": [{"index": i, "embedding": [0.0] * (3 + i)} for i in (0, 1)]}, "3 and 4 numbers"),
        ({"data": [{"index": i, "embedding": [0.0] * 3} for i in (0, 1)]}, "3 numbers"),
        ({"data": [{"index": i, "embedding": None} for i in (0, 1)]}, "numbers"),
        ({"data": [{"index": i, "embedding": "abc"} for i in (0, 1)]}, "embeddings of 8 width"),
        ({"data": "nothing"}, "another form"),
        (refuse(200, b"<html>"), "JSON, got '<html>'"),
        (refuse(200, [1, 2]), "another form"),
    ],
)
def test_an_answer_of_another_form_is_a_contract_error(server, fault, said):
    server.faults.append(fault)
    with pytest.raises(ContractError, match=said):
        encode(load(server, dim=DIM), ["a", "b"])
    assert len(server.seen) == 1


def test_one_failure_ends_the_others(server, monkeypatch):
    """Seven requests wait for a retry a minute away; the eighth is refused for good."""
    monkeypatch.setattr("fusemix_api.encoder.FEWEST_TEXTS", 1)
    busy = refuse(429, {}, {"Retry-After": "60"})

    def refused(handler, body):
        time.sleep(0.1)
        handler.answer(400, {"error": "no"})

    server.faults.extend([busy] * 7 + [refused])
    encoder = load(server)
    began = time.monotonic()
    with pytest.raises(ConfigError, match="no"):
        encode(encoder, list("abcdefgh"))
    assert time.monotonic() - began < 10
    torch.testing.assert_close(encode(encoder), expected())


def test_requests_per_minute(server, monkeypatch):
    monkeypatch.setenv(RATE, "600")
    monkeypatch.setattr("fusemix_api.encoder.FEWEST_TEXTS", 1)
    encoder = load(server)
    began = time.monotonic()
    encode(encoder, list("abcde"))
    assert 0.4 <= time.monotonic() - began < 5
    monkeypatch.setenv(RATE, "many")
    with pytest.raises(ConfigError, match="'many'"):
        load(server)


# -- keys ------------------------------------------------------------------------------------------


def test_the_key_of_the_host_is_sent_and_no_other(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai")
    encode(load(server))
    assert "Authorization" not in server.seen[0][1]
    monkeypatch.setenv("FUSEMIX_KEY_127_0_0_1", "of-this-host")
    encode(load(server))
    assert server.seen[1][1]["Authorization"] == "Bearer of-this-host"


def test_a_missing_key_is_said_before_any_request():
    with pytest.raises(ConfigError, match="OPENAI_API_KEY, which is not set") as error:
        ApiEncoder.load(PRESETS[0], CPU, torch.float32)
    assert "export OPENAI_API_KEY=" in error.value.hint


def test_the_key_is_nowhere_to_be_found(server, monkeypatch):
    logged, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(logged)
    monkeypatch.setattr(root, "handlers", [*root.handlers, handler])
    monkeypatch.setattr(root, "level", logging.DEBUG)
    monkeypatch.setenv("FUSEMIX_KEY_127_0_0_1", "sk-very-secret")
    server.faults.append(refuse(401, {"error": {"message": "wrong key: sk-very-secret"}}))
    encoder = load(server)
    with pytest.raises(ConfigError, match="wrong key: …") as error:
        encode(encoder)
    assert "FUSEMIX_KEY_127_0_0_1" in error.value.hint
    encode(encoder)
    shown = [str(error.value), logged.getvalue(), repr(vars(encoder)), repr(encoder.spec)]
    assert not any("sk-very-secret" in text for text in shown)
    assert b"sk-very-secret" not in pickle.dumps(encoder)


# -- long texts ------------------------------------------------------------------------------------


def test_long_texts_are_cut_and_counted(server):
    encoder = load(server, max_tokens=20)
    texts = ["short", "a" * 40, "a" * 41, "日" * 14]
    assert encoder.truncated(texts) == 2
    assert encoder.collate(texts) == ["short", "a" * 40, "a" * 40, "日" * 13]


def test_an_empty_text_is_sent_as_a_space(server):
    assert load(server).collate([""]) == [" "]


# -- the contract ----------------------------------------------------------------------------------


MINIATURES = [
    PRESETS[0],
    resolve("http://h/v1#m"),
    *(pytest.param(spec, marks=pytest.mark.long) for spec in PRESETS[1:]),
]


@pytest.mark.parametrize("spec", MINIATURES, ids=lambda s: s.name)
def test_the_miniature_keeps_the_contract(spec):
    check_encoder(spec, encoder=ApiEncoder.tiny(spec)).raise_if_failed()


@pytest.mark.parametrize("options", [OPENAI, pytest.param(COHERE, marks=pytest.mark.long)])
def test_the_real_way_keeps_the_contract(server, options):
    base = server.url if options is OPENAI else f"cohere+{server.url}"
    spec = replace(resolve(f"{base}#m"), dim=DIM, options=options)
    check_encoder(spec, encoder=ApiEncoder.load(spec, CPU, torch.float32)).raise_if_failed()


def test_empty_batch(server):
    assert load(server, dim=DIM).encode([]).shape == (0, DIM)
    assert load(server).encode([]).shape == (0, DIM)


def test_unknown_view_and_wrong_type(server):
    encoder = load(server)
    with pytest.raises(ConfigError, match="no view 'tokens'"):
        encoder.encode(["a"], "tokens")
    for wrong in (b"a", Path("a"), None, 3):
        with pytest.raises(TypeError, match="takes str"):
            encoder.collate(["a", wrong])


def test_collate_in_a_spawned_process(server):
    encoder = load(server, max_tokens=20)
    assert collate_in_worker(encoder, TEXTS) == encoder.collate(TEXTS)


def test_latents_are_kept_like_any_others(server, tmp_path):
    """What is in the store is not asked for again; neither is what a failed run had finished."""
    data = tmp_path / "texts.csv"
    texts = [f"the text number {i}" for i in range(1500)]
    data.write_text("text\n" + "\n".join(texts))
    name = f"api:{server.url}#m"

    def embedded():
        done = job.encode({"text": name}, data, store_dtype="float32").extractions["text"]
        return done.encoded, done.cached, done.warnings

    def stop(handler, body):
        handler.answer(400, {"error": "stopped"})

    server.faults.extend([{}] * 18 + [stop] * 50)
    with pytest.raises(ConfigError, match="stopped"):
        embedded()
    server.faults.clear()
    server.seen.clear()
    encoded, cached, (note,) = embedded()
    assert (encoded, cached) == (476, 1024) and len(server.texts) == 476
    assert "tokens" in note
    assert embedded() == (0, 1500, []) and len(server.texts) == 476
