"""Requests that are meant to do harm: each gets an error, and the server still answers."""

from __future__ import annotations

import base64
import io
import socket
import struct
import time

import numpy as np
import pytest
import soundfile
from PIL import Image
from serve_client import ask, data_uri, image_bytes, png_that_claims, sound_bytes


@pytest.fixture
def embed(server):
    def embed(given, **more):
        answer = ask(f"{server}/v1/embeddings", {"input": given, "model": "photos"} | more)
        assert answer.status < 500, answer.body
        return answer

    yield embed
    assert ask(f"{server}/v1/embeddings", {"input": "still there"}).status == 200


def told(answer):
    assert set(answer.json["error"]) == {"message", "hint", "code", "type"}
    return answer.json["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../etc/passwd", "file:///etc/passwd", "~/.ssh/id_rsa", "C:\\a.png"]
)
@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_path_is_never_opened(embed, path, modality):
    for given in ({modality: path}, {"image_url": {"url": path}}):
        answer = embed([given])
        assert answer.status in (400, 415) and "root:" not in answer.body.decode()
    assert embed(path, modality=modality).status in (400, 415)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/a.png",
        "https://example.org/a.png",
        "ftp://a/b",
        "HTTP://a",
        "gopher://a",
    ],
)
def test_no_address_is_fetched(embed, address):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        own = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        for url in (address, own):
            answer = embed([{"image": url}])
            assert answer.status == 400 and "fetches nothing" in told(answer)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_path_as_a_text_is_a_text(embed, models):
    row = embed("/etc/passwd").json["data"][0]["embedding"]
    np.testing.assert_allclose(row, models["photos"].encode("text", ["/etc/passwd"])[0], atol=1e-6)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(embed):
    for width, height in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (64_000_001, 1)):
        start = time.perf_counter()
        answer = embed([{"image": data_uri(png_that_claims(width, height), "image/png")}])
        assert answer.status in (413, 415) and time.perf_counter() - start < 10
    big = io.BytesIO()
    Image.new("1", (9000, 8000)).save(big, "PNG")
    assert len(big.getvalue()) < 100_000
    answer = embed([{"image": data_uri(big.getvalue(), "image/png")}])
    assert answer.status == 413 and "64,000,000 pixels together" in told(answer)


def test_many_images_count_together(embed):
    buffer = io.BytesIO()
    Image.new("1", (4000, 4000)).save(buffer, "PNG")
    uri = data_uri(buffer.getvalue(), "image/png")
    assert embed([{"image": uri}] * 5).status == 413
    small = data_uri(image_bytes(), "image/png")
    assert embed([{"image": small}] * 64).status == 200
    assert embed([{"image": small}] * 65).status == 413


def test_a_sound_that_lasts_too_long_is_refused_before_it_is_decoded(embed):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(100 * 700, np.int16), 100, format="FLAC")
    answer = embed([{"audio": data_uri(buffer.getvalue(), "audio/flac")}])
    assert answer.status == 413 and "600 seconds" in told(answer)
    claimed = bytearray(sound_bytes())
    claimed[40:44] = struct.pack("<I", 2**31)  # the length of the data in a WAV file
    assert embed([{"audio": data_uri(bytes(claimed), "audio/wav")}]).status in (200, 400, 413, 415)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_a_sound_with_a_mad_rate_is_refused(embed, rate):
    data = bytearray(sound_bytes())
    data[24:28] = struct.pack("<I", rate)
    assert embed([{"audio": data_uri(bytes(data), "audio/wav")}]).status in (400, 413, 415)


def test_a_rate_that_makes_resampling_explode_counts_as_its_result(embed):
    data = bytearray(sound_bytes(seconds=60, rate=8000))
    data[24:28] = struct.pack("<I", 100)  # 4,800 seconds now
    assert embed([{"audio": data_uri(bytes(data), "audio/wav")}]).status == 413


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_damaged_files_are_refused(embed, kind):
    whole = image_bytes(form="JPEG") if kind == "image" else sound_bytes()
    random = np.random.default_rng(0)
    for cut in (0, 1, 4, 20, len(whole) // 2):
        data = whole[:cut] or b"\0"
        assert embed([{kind: base64.b64encode(data).decode()}]).status in (200, 400, 413, 415)
    for _ in range(20):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 5):
            data[place] = random.integers(0, 256)
        assert embed([{kind: base64.b64encode(data).decode()}]).status in (200, 400, 413, 415)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<html><script>alert(1)</script></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
        b"P6 99999 99999 255\n",
    ],
)
def test_what_is_no_image_is_refused_whatever_it_claims(embed, data):
    answer = embed([{"image": data_uri(data, "image/png")}])
    assert answer.status == 415 and "isn't an image" in told(answer)


@pytest.mark.parametrize("value", ["not base64!", "====", "data:image/png;base64,", "\u00e9", " "])
def test_what_is_no_base64_is_refused(embed, value):
    assert embed([{"image": value}]).status in (400, 415)


@pytest.mark.parametrize(
    "given",
    [
        [], {}, [None], [[]], [1], 1.5, True, [True], [{"text": 5}], [{"text": None}],
        [{"text": "a", "image": "b"}], [{"vídeo": "a"}], [{"text": {"a": 1}}], [["a"]], "", "  ",
        [{"__class__": "a"}], [{"modality": "text"}], {"text": []},
    ],
)  # fmt: skip
def test_other_types_are_refused(embed, given):
    answer = embed(given)
    assert answer.status == 400 and told(answer)


def test_too_many_or_too_long_texts_are_refused(embed):
    assert embed(["a"] * 2049).status == 413
    assert embed("a" * 100_001).status == 413
    assert embed(["a"] * 2048).status == 200


@pytest.mark.parametrize(
    "more",
    [
        {"dimensions": 0}, {"dimensions": -1}, {"dimensions": 1.5}, {"dimensions": True},
        {"dimensions": 10**30}, {"encoding_format": "pickle"}, {"encoding_format": ["float"]},
        {"modality": 5}, {"modality": "../../etc"}, {"input_type": "x"}, {"input_type": ["query"]},
        {"input_type": "query", "dimensions": 2},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(embed, more):
    assert embed("a", **more).status == 400


@pytest.mark.parametrize("name", ["../../etc/passwd", "x" * 100_000, 5, ["photos"], {"a": 1}])
def test_an_unknown_model_is_not_looked_for_on_disk(embed, name):
    answer = embed("a", model=name)
    assert answer.status == 404 and len(answer.body) < 1000


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"null", b'"a"', b"[" * 100_000, b'{"input": NaN}', b"\xff\xfe",
        b'{"input": "\\ud800"}', b'{"input": ' + b"9" * 10_000 + b"}",
        b'{"input": ' + b'{"a":' * 50_000,
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(server, embed, raw):
    answer = ask(f"{server}/v1/embeddings", raw=raw)
    assert answer.status == 400 and told(answer)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server, embed):
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999999\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        assert b" 413 " in connection.recv(4096)


def test_a_body_without_a_length_is_cut_off(server, embed):
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        try:
            for _ in range(40):
                connection.sendall(chunk)
            answer = connection.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            return  # cut off while we were still sending
        assert b" 413 " in answer


@pytest.mark.parametrize("path", ["/v2/embed", "/v1/rerank", "/v1/score", "/v1/predict"])
@pytest.mark.parametrize(
    "body",
    [
        {}, {"texts": 5}, {"texts": ["a"], "images": ["b"]}, {"images": ["/etc/passwd"]},
        {"inputs": [{"content": []}]}, {"inputs": [{"content": "a"}]}, {"inputs": [5]},
        {"inputs": [{"content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}]},
        {"texts": ["a"], "embedding_types": "float"}, {"texts": ["a"], "embedding_types": ["x"]},
        {"query": "a"}, {"query": {"image": "/etc/passwd"}, "documents": ["a"]},
        {"query": "a", "documents": "b"}, {"query": "a", "documents": ["b"], "top_n": -1},
        {"query": ["a", "b"], "documents": ["b"]}, {"text_1": [], "text_2": []},
        {"rows": []}, {"rows": ["a"]}, {"rows": [{}]}, {"rows": [{"image": "/etc/passwd"}]},
        {"rows": [{"text": None}]}, {"rows": [{"text": "a", "color": "b"}]},
    ],
)  # fmt: skip
def test_the_other_endpoints_refuse_too(server, embed, path, body):
    answer = ask(f"{server}{path}", body)
    assert 400 <= answer.status < 500 and told(answer)
    assert "/work" not in answer.body.decode() and "/tmp" not in answer.body.decode()


def test_other_methods_and_paths_are_json_errors(server, embed):
    for method, path in (("DELETE", "/v1/models"), ("PUT", "/"), ("GET", "/v1/embeddings")):
        answer = ask(f"{server}{path}", method=method)
        assert answer.status == 405 and answer.json["error"]["code"] == "method_not_allowed"
    answer = ask(f"{server}/<script>alert(1)</script>".replace("<", "%3C").replace(">", "%3E"))
    assert answer.status == 404 and b"script" not in answer.body


def test_metrics_have_no_label_that_a_client_makes_up(server, embed):
    for path in ("/made-up", "/v1/models/made-up", "/static/made-up"):
        ask(f"{server}{path}")
    assert b"made-up" not in ask(f"{server}/metrics").body


def test_errors_name_no_path():
    from fusemix_serve.replies import as_refused

    from fusemix_core.errors import ArtefactError, ConfigError, DataError

    for error in (
        DataError("can't be read", path="/home/me/secret/a.png"),
        DataError("/home/me/secret/a.png can't be read"),
        ConfigError("no file C:\\Users\\me\\a.png", "See /home/me/run/config.json"),
        ArtefactError("/home/me/run is damaged"),
        RuntimeError("/home/me/secret"),
    ):
        refused = as_refused(error)
        assert "me" not in f"{refused.message} {refused.hint}".replace("some", "").split("/")
        assert "home" not in refused.message + refused.hint and "Users" not in refused.message
