"""Who may ask: other names of the server, other pages, other machines."""

from __future__ import annotations

import http.client

import pytest
from fusemix_serve.settings import Settings
from serve_client import ask

from fusemix_core.errors import ConfigError

TOKEN = "a-token-of-the-tests"
INPUT = {"input": "a"}


@pytest.fixture(scope="module")
def guarded(start):
    """A server with a token."""
    with start("photos", token=TOKEN) as found:
        yield found


def raw(port, *lines, body=b""):
    """(status, headers, body) of a request that no decent client would send."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    method, path, *headers = lines
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for header in headers:
        connection.putheader(*header.split(": ", 1))
    connection.endheaders(body or None)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def port_of(url):
    return int(url.split(":")[2].partition("/")[0])


def test_a_name_that_an_attacker_points_here_is_refused(server):
    port = port_of(server)
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", ""):
        assert raw(port, "GET", "/info", f"Host: {name}")[0] == 421, name
    for name in (f"localhost:{port}", f"LOCALHOST:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert raw(port, "GET", "/info", f"Host: {name}")[0] == 200, name


def test_a_request_with_no_host_or_two_is_refused(server):
    port = port_of(server)
    assert raw(port, "GET", "/info")[0] in (400, 421)
    two = raw(port, "GET", "/info", "Host: localhost", "Host: evil.example")
    assert two[0] in (400, 421)


def test_what_another_page_sends_is_refused(server):
    own = server.removeprefix("http://")
    foreign = ["http://evil.example", "null", f"http://evil.example:{own}", "http://localhost:1"]
    foreign += [f"http://{own}.evil.example", f"file://{own}", ""]
    for origin in foreign:
        answer = ask(f"{server}/v1/embeddings", INPUT, {"Origin": origin})
        assert answer.status == 403, origin
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert ask(f"{server}/v1/embeddings", INPUT, {"Origin": server}).status == 200
    assert ask(f"{server}/v1/embeddings", INPUT, {"Sec-Fetch-Site": "cross-site"}).status == 403


def test_no_preflight_is_answered_so_no_other_page_can_read(server):
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = ask(f"{server}/v1/embeddings", headers=headers, method="OPTIONS")
    assert answer.status == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_a_form_of_another_page_is_not_json(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = ask(f"{server}/v1/embeddings", INPUT, {"Content-Type": kind})
        assert answer.status == 415, kind


def test_every_answer_has_the_headers_that_confine_a_page(server):
    for path in ("/", "/info", "/missing", "/static/missing.js"):
        headers = ask(f"{server}{path}").headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        csp = headers["Content-Security-Policy"]
        assert csp.startswith("default-src 'self';") and "unsafe" not in csp
        assert "frame-ancestors 'none'" in csp
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "server" not in {name.lower() for name in headers}


def test_static_files_are_those_of_the_package_only(server):
    for path in (
        "/static/../settings.py",
        "/static/%2e%2e/settings.py",
        "/static/..%2fsettings.py",
        "/static//etc/passwd",
        "/static/%00",
        "/etc/passwd",
    ):
        answer = raw(port_of(server), "GET", path, "Host: localhost")
        assert answer[0] in (400, 404), path
        assert b"Settings" not in answer[2] and b"root:" not in answer[2]


def test_without_the_token_only_health_is_answered(guarded):
    url = f"http://127.0.0.1:{guarded.port}"
    assert ask(f"{url}/health").status == 200
    assert ask(f"{url}/ready").status in (200, 503)
    for path in ("/", "/info", "/metrics", "/v1/models", "/static/index.html", "/login"):
        assert ask(f"{url}{path}").status in (401, 403), path
    wrong = ("Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}")
    for given in (*wrong, "Bearer \xff"):
        headers = {"Authorization": given}
        assert ask(f"{url}/v1/embeddings", INPUT, headers).status == 401, given
    assert ask(f"{url}/v1/embeddings", INPUT).headers["WWW-Authenticate"] == "Bearer"
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(f"{url}/v1/embeddings", INPUT, right).status == 200


def test_the_printed_address_logs_one_browser_in(guarded):
    assert "/login?code=" in guarded.url and TOKEN not in guarded.url
    url = f"http://127.0.0.1:{guarded.port}"
    assert ask(f"{url}/login?code=guessed").status == 403
    answer = ask(guarded.url)
    assert answer.status == 303 and answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
    sent = {"Cookie": cookie.partition(";")[0]}
    assert ask(f"{url}/info", headers=sent).status == 200
    assert ask(f"{url}/", headers=sent).status == 200
    forged = {"Cookie": sent["Cookie"].partition("=")[0] + "=guessed"}
    assert ask(f"{url}/info", headers=forged).status == 401
    assert ask(guarded.url).status == 403  # once only
    foreign = sent | {"Origin": "http://evil.example"}
    assert ask(f"{url}/v1/embeddings", INPUT, foreign).status == 403


def test_other_machines_need_a_token():
    for host in ("0.0.0.0", "192.168.1.2", "::", "machine.example"):  # noqa: S104
        with pytest.raises(ConfigError, match="needs a token") as caught:
            Settings(host=host)
        assert "--token" in caught.value.hint
        assert not Settings(host=host, token=TOKEN).loopback
    with pytest.raises(ConfigError, match="16 ASCII"):
        Settings(host="192.168.1.2", token="short")
    assert Settings().loopback
