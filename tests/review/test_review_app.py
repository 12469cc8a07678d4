"""The page over HTTP: what it answers, and to whom."""

import json
import re
import socket
import threading
import urllib.error
import urllib.request

import pytest

pytest.importorskip("starlette", reason="the page is an extra: pip install 'pudistill[review]'")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from starlette.testclient import TestClient

from pudistill.exceptions import InputError
from pudistill.review import app as app_module
from pudistill.review import server as server_module
from pudistill.review.app import Access, make_app
from pudistill.review.server import ReviewServer

HOST = "127.0.0.1:8000"
ORIGIN = {"Origin": f"http://{HOST}"}


def client_of(session, password=None, hosts=(HOST,)):
    access = Access(set(hosts), 8000, password)

    async def wait():
        return session

    client = TestClient(make_app(wait, access), base_url=f"http://{HOST}")
    client.token, client.session = access.token, session
    return client


@pytest.fixture
def client(text_run, start, mixed_queue):
    client = client_of(start(text_run, mixed_queue))
    assert client.get("/", params={"token": client.token}).status_code == 200
    client.headers.update(ORIGIN)
    return client


def post(client, path, **content):
    common = {"session": "s", "page": "p", "who": "Ann", "scope": "queue", "filter": {}}
    return client.post(f"/api/{path}", json=common | content)


def test_a_decision_is_answered_with_the_next_sample(client):
    first = post(client, "next").json()["sample"]
    assert (first["id"], first["given"], first["text"]) == (
        "t5",
        "owl",
        "<script>alert(1)</script>",
    )
    answer = post(client, "decide", rows=[5], action="given").json()
    assert answer["sample"]["id"] == "t3"
    assert answer["progress"] == {
        "n_queue": 4, "n_open": 3, "n_verified": 1, "n_skipped": 0, "n_trusted": 3,
    }  # fmt: skip
    assert client.session.decisions.of("t5").who == "Ann"
    back = post(client, "undo").json()
    assert (back["sample"]["id"], back["progress"]["n_verified"]) == ("t5", 0)


def test_a_decision_that_is_sent_again_is_written_once(client):
    for _ in range(2):
        assert post(client, "decide", rows=[5], action="given").status_code == 200
    assert len(client.session.decisions.path.read_text().splitlines()) == 1


def test_many_are_decided_at_once(client):
    cards = post(client, "grid").json()["samples"]
    assert [card["row"] for card in cards] == [5, 3, 8, 4]
    rows = [card["row"] for card in cards[:3]]
    post(client, "decide", rows=rows, action="label", label="dog", many=True)
    assert client.session.decisions.current()["label"].tolist() == ["dog"] * 3


def test_more_samples_are_drawn(client):
    for row in (5, 3, 8, 4):
        post(client, "decide", rows=[row], action="skip")
    assert post(client, "next").json()["sample"] is None
    assert post(client, "more").json()["sample"]["part"] == "random"


def test_long_texts_are_cut_and_can_be_seen_whole(client):
    shown = client.session.show(client.session.queue[3])
    assert (len(shown["text"]), shown["n_characters"]) == (20_000, 500_000)
    whole = client.get("/text/4")
    assert (len(whole.text), whole.headers["content-type"]) == (
        500_000, "text/plain; charset=utf-8",
    )  # fmt: skip


def test_pictures_are_served_by_row_only(picture_run, start):
    client = client_of(start(picture_run))
    client.get("/", params={"token": client.token})
    assert client.get("/picture/4").headers["content-type"] == "image/png"
    assert client.get("/picture/99").status_code == 409
    for path in ("/picture/..%2f..%2fetc%2fpasswd", "/static/..%2fapp.py", "/static/../app.py"):
        assert client.get(path).status_code == 404
    assert client.get("/text/4").status_code == 409


def test_a_suggestion_is_told_if_it_is_asked_for(client):
    assert client.get("/api/suggestion/5").json()["suggestion"] == "cat"
    refused = client.get("/api/suggestion/3")
    assert refused.status_code == 409
    assert "drawn at random" in refused.json()["error"]


def test_where_nothing_can_be_promised_the_page_says_why(client):
    promises = client.get("/api/promises").json()["promises"]
    assert promises["rows"] == []
    assert "Nothing can be promised" in promises["note"]


@pytest.mark.parametrize("token", ["", "x", "ü"])
def test_another_token_is_refused_with_a_sentence(client, token):
    client.cookies.clear()
    page = client.get("/", params={"token": token})
    assert page.status_code == 403
    assert "open the address that the command printed" in page.text
    client.cookies.set("pudistill-review-8000", "of another server")
    for answer in (post(client, "next"), client.get("/picture/1"), client.get("/api/about")):
        assert answer.status_code == 403
        assert "open the address that the command printed" in answer.json()["error"]


def test_the_cookie_is_not_for_scripts_and_not_for_other_sites(client):
    cookie = client.get("/", params={"token": client.token}).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert client.token not in cookie


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},  # as after DNS rebinding
        {"Host": "127.0.0.1:9000"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_requests_of_other_sites_are_not_answered(client, headers):
    answer = client.post(
        "/api/decide", json={"rows": [5], "action": "given"}, headers=ORIGIN | headers
    )
    assert answer.status_code == 403
    assert client.session.decisions.current().empty


def test_a_post_without_an_origin_is_not_answered(client):
    del client.headers["Origin"]
    assert post(client, "decide", rows=[5], action="given").status_code == 403


def test_every_answer_has_the_headers_that_protect_it(client):
    for path in ("/", "/api/about", "/static/review.js", "/picture/1", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_has_no_script_or_style_of_its_own(client):
    page = client.get("/").text
    assert not re.search(r"<script(?! src=)|<style|\son\w+=|\sstyle=|https?://", page)
    script = client.get("/static/review.js").text
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?://", script
    )


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"[" * 100_000, b'{"rows": "5"}', b'{"rows": [5.5]}', b"{}"]
)
def test_nonsense_is_refused_with_a_sentence(client, content):
    answer = client.post("/api/decide", content=content)
    assert answer.status_code == 409
    assert "load it again" in answer.json()["error"]


def test_a_flood_is_refused(client):
    assert client.post("/api/decide", content=b" " * 2**21).status_code == 409


def test_a_filter_of_wrong_types_leaves_nothing_out(client):
    wanted = {"given": 3, "low": "x", "changed": "yes", "search": None}
    assert post(client, "next", filter=wanted).json()["sample"]["id"] == "t5"


def test_a_full_disk_is_a_sentence(client, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pudistill.review.decisions.os.fsync", fail)
    answer = post(client, "decide", rows=[5], action="given")
    assert answer.status_code == 500
    assert "No space left on device. Nothing was decided." in answer.json()["error"]


def test_a_password_opens_the_page(text_run, start, monkeypatch):
    monkeypatch.setattr(app_module, "SECONDS_AFTER_WRONG_PASSWORD", 0.0)
    client = client_of(start(text_run), "correct horse", hosts=())
    client.headers.update(ORIGIN)
    assert 'type="password"' in client.get("/", params={"token": client.token}).text
    assert client.post("/login", json={"password": "wrong horse"}).status_code == 403
    assert client.get("/api/about").status_code == 403
    assert client.post("/login", json={"password": "correct horse"}).status_code == 200
    assert client.get("/api/about").status_code == 200


def test_other_machines_need_a_password(text_run):
    with pytest.raises(InputError, match="give it a password"):
        ReviewServer(lambda: None, host="0.0.0.0")
    with pytest.raises(InputError, match="shorter than 8"):
        ReviewServer(lambda: None, host="0.0.0.0", password="1234567")
    server = ReviewServer(lambda: None, host="0.0.0.0", password="12345678")
    assert ("token" in server.url, "0.0.0.0" in server.url) == (False, False)


def test_a_port_in_use_is_a_sentence(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror("Name or service not known")

    with_port = ReviewServer(lambda: None)
    with pytest.raises(InputError, match=f"Port {with_port.port} is in use"):
        ReviewServer(lambda: None, port=with_port.port)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(InputError, match="Cannot listen at no-such-host"):
        ReviewServer(lambda: None, host="no-such-host.invalid", password="long enough")


def test_a_server_writes_the_trusted_table_and_ends(text_run, start, mixed_queue, monkeypatch):
    monkeypatch.setattr(server_module, "SECONDS_BETWEEN_TABLES", 0.0)
    session = start(text_run, mixed_queue)
    server = ReviewServer(lambda: session)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        opened = urllib.request.urlopen(server.url)
        cookie = opened.headers["Set-Cookie"].split(";")[0]
        content = json.dumps({"rows": [5], "action": "given", "who": "Ann", "filter": {}})
        headers = {"Origin": server.address[:-1], "Cookie": cookie}
        url = f"{server.address}api/decide"
        request = urllib.request.Request(url, content.encode(), headers)
        assert json.load(urllib.request.urlopen(request))["sample"]["id"] == "t3"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(server.address)
    finally:
        server.stop()
        thread.join()
    assert "t5,owl,0.8" in (text_run.path / "review" / "trusted.csv").read_text()


def test_a_run_that_cannot_be_read_ends_the_server():
    def fail():
        raise InputError("There is no run.")

    with pytest.raises(InputError, match="There is no run"):
        ReviewServer(fail).run()
