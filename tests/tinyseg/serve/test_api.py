"""Requests against the application itself, without a network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

import tinyseg
from tests.tinyseg.serve.conftest import SIZE, app_of, drawn_source, until
from tinyseg.serve.limits import BODY_BYTES, REQUESTS_BURST, UPLOAD_PIXELS, VIEWERS
from tinyseg.serve.live import Live, Unavailable
from tinyseg.serve.viewers import Viewers
from tinyseg.sources import ArraySource

testclient = pytest.importorskip("starlette.testclient", reason="httpx2 is not installed (the test extra)")

BASE = "http://127.0.0.1:8000"
CHANNEL = "ws://127.0.0.1:8000/api/channel"
TOKEN = "correct-horse-battery"


@pytest.fixture
def client(live: Live, fake: tinyseg.Segmenter) -> Iterator[Any]:
    with testclient.TestClient(app_of(live, fake), base_url=BASE) as client:
        yield client


def test_an_object_from_birth_to_end(client: Any, live: Live) -> None:
    made = client.post("/api/objects", json={"box": [100, 60, 200, 160], "name": "cup", "color": "#112233"})
    assert made.status_code == 201 and made.json()["name"] == "cup" and made.json()["box"] == [100, 60, 200, 160]
    state = until(lambda: client.get("/api/state").json() if live.latest.objects else None)
    assert (
        state["objects"] == [made.json()] and (state["width"], state["height"]) == SIZE and state["source"] == "drawn"
    )
    corrected = client.post(
        "/api/objects/1/prompts", json={"points": [[150, 110]], "labels": [0], "frame": state["frame"]}
    )
    assert corrected.status_code == 200 and corrected.json()["area"] < made.json()["area"]
    assert client.patch("/api/objects/1", json={"name": "mug"}).json()["name"] == "mug"
    coco = until(lambda: client.get("/api/masks.json").json())
    assert coco["annotations"][0]["bbox"] == [100, 60, 100, 100] and coco["images"][0]["width"] == SIZE[0]
    assert client.delete("/api/objects/1").status_code == 204
    assert client.delete("/api/objects/1").status_code == 404
    assert client.delete("/api/objects").status_code == 204


def test_pictures(client: Any, live: Live) -> None:
    live.add(tinyseg.Prompt(box=[100, 60, 200, 160]), color="#00ff00").result(5)
    until(lambda: live.latest.objects)
    plain = cv2.imdecode(np.frombuffer(client.get("/api/frame.jpg").content, np.uint8), cv2.IMREAD_COLOR)
    answer = client.get("/api/picture.png")
    masked = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert (
        plain.shape == masked.shape == (SIZE[1], SIZE[0], 3) and "attachment" in answer.headers["content-disposition"]
    )
    assert masked[110, 150, 1].astype(int) > plain[110, 150, 1].astype(int) + 30
    assert abs(masked[5, 5].astype(int) - plain[5, 5].astype(int)).max() < 12


def test_control_and_recording(client: Any, live: Live) -> None:
    assert client.post("/api/control", json={"do": "step"}).json() == {"status": "paused"}
    assert client.post("/api/recordings").status_code == 201
    assert client.get("/api/recordings/1/video.mp4").status_code == 503
    frame = live.latest.frame
    client.post("/api/control", json={"do": "play"})
    until(lambda: live.latest.frame > frame + 3)
    assert client.post("/api/recordings/stop").status_code == 200
    until(lambda: not client.get("/api/recordings").json()[0]["running"])
    video = client.get("/api/recordings/1/video.mp4")
    assert video.status_code == 200 and len(video.content) == int(video.headers["content-length"]) > 100
    assert client.get("/api/recordings/1/coco.json").json()["images"]
    assert client.get("/api/recordings/2/coco.json").status_code == 404
    assert client.post("/api/recordings/stop").status_code == 422


def test_a_picture_of_ones_own(client: Any, scene: Any) -> None:
    frame, _ = scene
    image = base64.b64encode(cv2.imencode(".png", frame)[1].tobytes()).decode()
    answer = client.post(
        "/api/segment",
        json={"image": image, "prompts": [{"box": [100, 60, 240, 160]}, {"points": [[5, 5]], "labels": [1]}]},
    )
    assert answer.status_code == 200
    body = answer.json()
    assert (body["width"], body["height"]) == (320, 240) and body["masks"][0]["box"] == [100, 60, 240, 160]
    assert body["masks"][0]["segmentation"]["size"] == [240, 320]


def png_that_claims(width: int, height: int) -> str:
    head = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
        + width.to_bytes(4, "big")
        + height.to_bytes(4, "big")
        + b"\x08\x02\x00\x00\x00"
    )
    return base64.b64encode(head).decode()


@pytest.mark.parametrize(
    "image, says",
    [
        ("%%%", "base64"),
        (base64.b64encode(b"GIF89a" + bytes(50)).decode(), "not a JPEG or PNG"),
        (base64.b64encode(b"\xff\xd8\xff\xe0\x00").decode(), "not a JPEG or PNG"),
        (
            base64.b64encode(cv2.imencode(".webp", np.zeros((8, 8, 3), np.uint8))[1].tobytes()).decode(),
            "not a JPEG or PNG",
        ),
        (  # its header states a size, and OpenCV reads it
            base64.b64encode(cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes()).decode(),
            "not a JPEG or PNG",
        ),
        (png_that_claims(65535, 65535), f"at most {UPLOAD_PIXELS // 1_000_000} million"),
        (png_that_claims(0, 7), "at most"),
        (png_that_claims(20, 20), "damaged"),
    ],
)
def test_malformed_pictures(client: Any, image: str, says: str) -> None:
    answer = client.post("/api/segment", json={"image": image, "prompts": [{"box": [0, 0, 9, 9]}]})
    assert answer.status_code == 422 and says in answer.json()["error"]


@pytest.mark.parametrize(
    "body, status, says",
    [
        (b"{", 422, "not JSON"),
        (b'{"box": [0, 0, 9, NaN]}', 422, "not JSON"),
        (b"[" * 100_000, 422, "not JSON"),
        (b"\xff\xfe", 422, "not JSON"),
        (b"[]", 422, "not of type 'object'"),
        (b"{}", 422, "required"),
        (b'{"points": [[1, 2]]}', 422, "labels"),
        (b'{"points": [[1, 2]], "labels": [1, 1]}', 422, "labels must have shape"),
        (b'{"points": [[1, 2]], "labels": [true]}', 422, "labels/0"),
        (b'{"box": [0, 0, 9]}', 422, "box"),
        (b'{"box": [9, 9, 0, 0]}', 422, "x0 < x1"),
        (b'{"box": [0, 0, 1e400, 9]}', 422, "box/2"),
        (b'{"box": [0, 0, 9, 9], "name": "\\ud800"}', 422, "printable"),
        (b'{"box": [0, 0, 9, 9], "color": "red"}', 422, "color"),
        (b'{"box": [0, 0, 9, 9], "path": "/etc/passwd"}', 422, "path"),
        (b'{"box": [0, 0, 9, 9], "frame": 99999}', 404, "not kept"),
    ],
)
def test_malformed_bodies(client: Any, live: Live, body: bytes, status: int, says: str) -> None:
    answer = client.post("/api/objects", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status and says in answer.json()["error"]
    assert not live.latest.objects


def test_other_kinds_of_content_are_refused(client: Any) -> None:
    answer = client.post("/api/objects", content=b'{"box": [0, 0, 9, 9]}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415  # what a form of another site could send


def test_giant_uploads_are_refused_before_they_are_read(client: Any) -> None:
    read = []

    def chunks() -> Iterator[bytes]:
        for _ in range(2 + (BODY_BYTES >> 20)):
            read.append(1)
            yield bytes(1 << 20)

    headers = {"content-type": "application/json"}
    assert client.post("/api/segment", content=chunks(), headers=headers).status_code == 413
    answer = client.post("/api/segment", content=b"{}", headers={**headers, "content-length": str(1 << 40)})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.5", "", "[::1", "a b"]
)
def test_foreign_hosts_are_refused(client: Any, host: str) -> None:
    assert client.get("/api/state", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "localhost."])
def test_loopback_hosts_are_ours(client: Any, host: str) -> None:
    assert client.get("/api/state", headers={"host": host}).status_code == 200


def test_a_request_names_one_host(client: Any) -> None:
    for hosts in (("127.0.0.1:8000", "evil.example"), ("evil.example", "127.0.0.1:8000")):
        answer = client.get("/api/state", headers=[("host", host) for host in hosts])
        assert answer.status_code in (400, 421)
    assert client.get("/api/state", headers=[("host", "127.0.0.1:8000")] * 2).status_code == 400


def test_other_sites_pages_cannot_use_it(client: Any, live: Live) -> None:
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8001"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a form that a page of another site sends
    ):
        assert client.post("/api/control", json={"do": "play"}, headers=headers).status_code == 403
    assert (
        client.get("/api/frame.jpg", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status_code
        == 403
    )
    assert (
        client.get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status_code == 200
    )  # a link
    assert client.post("/api/control", json={"do": "pause"}, headers={"origin": BASE}).status_code == 200
    assert live.latest.status == "paused"
    answer = client.options(
        "/api/state", headers={"origin": "http://evil.example", "access-control-request-method": "GET"}
    )
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_headers_close_the_page(client: Any) -> None:
    headers = client.get("/").headers
    assert (
        "frame-ancestors 'none'" in headers["content-security-policy"]
        and headers["x-content-type-options"] == "nosniff"
    )
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_asks_no_other_host(client: Any) -> None:
    for path in (
        "/",
        "/login",
        "/page/main.js",
        "/page/style.css",
        "/page/view.js",
        "/page/frames.js",
        "/page/channel.js",
    ):
        text = client.get(path).text
        rest = text.replace("http://www.w3.org", "")
        assert "http://" not in rest and "https://" not in rest and "//cdn" not in rest, path


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/page/main.js/..",
        "/../x",
        "/page/",
        "/etc/passwd",
    ],
)
def test_no_path_reaches_the_file_system(client: Any, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_token_is_wanted_everywhere(live: Live, fake: tinyseg.Segmenter) -> None:
    app = app_of(live, fake, token=TOKEN, wide=True, names=["cam.local"])
    with testclient.TestClient(app, base_url="http://192.168.7.7:8000", follow_redirects=False) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/").headers["location"] == "/login" and client.get("/login").status_code == 200
        for path in ("/api/state", "/api/frame.jpg", "/metrics", "/openapi.json", "/api/stream.mjpg", "/nothing"):
            assert client.get(path).status_code == 401, path
        with pytest.raises(testclient.WebSocketDisconnect), client.websocket_connect(CHANNEL):
            pass
        assert client.get("/api/state", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/api/state", headers={"authorization": "Bearer tokén".encode("latin-1")}).status_code == 401
        assert client.get("/api/state", headers={"cookie": "tinyseg-session=x"}).status_code == 401
        assert (
            client.get("/api/state", headers={"host": "cam.local", "authorization": f"Bearer {TOKEN}"}).status_code
            == 200
        )
        assert (
            client.get("/api/state", headers={"host": "evil.example", "authorization": f"Bearer {TOKEN}"}).status_code
            == 421
        )
        assert client.post("/api/login", json={"token": "wrong"}).status_code == 401
        answer = client.post("/api/login", json={"token": TOKEN})
        cookie = answer.headers["set-cookie"]
        assert (
            answer.status_code == 204
            and "HttpOnly" in cookie
            and "samesite=strict" in cookie.lower()
            and TOKEN not in cookie
        )
        assert client.get("/api/state").status_code == 200  # the cookie
        with client.websocket_connect("ws://192.168.7.7:8000/api/channel") as channel:
            assert channel.receive_json()["type"] == "state"


def test_who_has_no_token_sends_little(live: Live, fake: tinyseg.Segmenter) -> None:
    read = []

    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            read.append(1)
            yield bytes(16 << 10)

    headers = {"content-type": "application/json"}
    with testclient.TestClient(app_of(live, fake, token=TOKEN), base_url=BASE) as client:
        answer = client.post("/api/login", content=chunks(), headers=headers)
        assert answer.status_code == 413 and "64 KiB" in answer.json()["error"]
        stated = client.post("/api/login", content=b"{}", headers={**headers, "content-length": str(1 << 20)})
        assert stated.status_code == 413
        assert client.post("/api/login", json={"token": TOKEN}).status_code == 204


def test_guessing_tokens_is_slow(live: Live, fake: tinyseg.Segmenter) -> None:
    with testclient.TestClient(app_of(live, fake, token=TOKEN), base_url=BASE) as client:
        found = [client.post("/api/login", json={"token": f"guess-{i}"}).status_code for i in range(12)]
        assert found == [401] * 10 + [429] * 2
        assert client.get("/api/state", headers={"authorization": "Bearer nothing"}).status_code == 429
        assert client.post("/api/login", json={"token": TOKEN}).status_code == 429


def test_guessing_by_the_header_is_as_slow(live: Live, fake: tinyseg.Segmenter) -> None:
    with testclient.TestClient(app_of(live, fake, token=TOKEN), base_url=BASE) as client:
        ask = lambda token: client.get("/api/state", headers={"authorization": f"Bearer {token}"}).status_code  # noqa: E731
        assert ask(TOKEN) == 200
        assert [ask(f"guess-{i}") for i in range(12)] == [401] * 10 + [429] * 2
        assert ask(TOKEN) == 429  # the right one tells a guesser nothing either


def test_requests_are_limited(live: Live, fake: tinyseg.Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.serve.guard.REQUESTS_PER_SECOND", 0.01)
    with testclient.TestClient(app_of(live, fake), base_url=BASE) as client:
        found = [client.get("/api/state").status_code for _ in range(REQUESTS_BURST + 5)]
    assert found == [200] * REQUESTS_BURST + [429] * 5


def test_metrics_health_and_description(client: Any, live: Live) -> None:
    assert client.get("/healthz").json() == {"status": "paused"}
    client.get("/no/such/page")
    text = client.get("/metrics").text
    assert (
        "tinyseg_frames_total 1.0" in text
        and 'route="/healthz"' in text
        and 'route="other"' in text
        and "no/such" not in text
    )
    assert client.get("/openapi.json").json()["openapi"] == "3.1.0"
    live.stop()
    assert client.get("/healthz").status_code == 503
    assert client.post("/api/control", json={"do": "play"}).status_code == 503


def test_a_failed_source_is_not_healthy(make_live: Callable[..., Live], fake: tinyseg.Segmenter) -> None:
    def broken() -> Iterator[Any]:
        yield np.zeros((40, 60, 3), np.uint8)
        raise tinyseg.DataError("gone")

    live = make_live(lambda: ArraySource(broken()), playing=True)
    until(lambda: live.latest and live.latest.status == "failed")
    with testclient.TestClient(app_of(live, fake), base_url=BASE) as client:
        assert client.get("/healthz").status_code == 503
        assert client.get("/api/state").json()["message"] == "gone"


def test_an_error_of_ours_shows_no_traceback(client: Any, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.serve.api.picture_document", lambda *_: 1 / 0)
    answer = client.get("/api/masks.json")
    assert answer.status_code == 500 and "ZeroDivision" not in answer.text
    assert client.get("/api/state").status_code == 200


@pytest.mark.parametrize(
    "message, says",
    [
        ("{", "not JSON"),
        ("[1]", "a message is"),
        ('{"action": "fly"}', "action must be one of"),
        ('{"action": ["add"]}', "action must be one of"),
        ('{"action": "add"}', "required"),
        ('{"action": "remove", "object": 5}', "no object 5"),
        ('{"action": "remove", "object": "1; rm"}', "object"),
        ('{"action": "play", "extra": 1}', "extra"),
        ('{"action": "play", "id": {"a": 1}}', "id must be"),
    ],
)
def test_websocket_garbage_is_answered_and_the_channel_goes_on(client: Any, message: str, says: str) -> None:
    with client.websocket_connect(CHANNEL) as channel:
        assert channel.receive_json()["type"] == "state"
        channel.send_text(message)
        answer = answered(channel)
        assert answer["type"] == "error" and says in answer["error"]
        channel.send_bytes(b"\xff\x00garbage")
        assert answered(channel)["type"] == "error"
        channel.send_json({"action": "add", "id": "a", "box": [100, 60, 200, 160]})
        done = answered(channel)
        assert done["type"] == "done" and done["id"] == "a" and done["result"]["id"] == 1


def answered(channel: Any) -> dict[str, Any]:
    """The next message that is no state."""
    while True:
        message = json.loads(channel.receive_text())
        if message["type"] != "state":
            return dict(message)


def test_websocket_origins_are_checked(client: Any) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999"):
        with (
            pytest.raises(testclient.WebSocketDisconnect),
            client.websocket_connect(CHANNEL, headers={"origin": origin}),
        ):
            pass
    with client.websocket_connect(CHANNEL, headers={"origin": BASE}) as channel:
        assert channel.receive_json()["status"] == "paused"


def test_messages_are_limited(client: Any) -> None:
    with client.websocket_connect(CHANNEL) as channel:
        for _ in range(400):
            channel.send_text("{}")
        with pytest.raises(testclient.WebSocketDisconnect) as ended:
            for _ in range(500):
                channel.receive_text()
    assert ended.value.code == 1013


def test_too_many_viewers_are_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.serve.viewers.VIEWERS", 1)
    with client.websocket_connect(CHANNEL) as channel:
        assert channel.receive_json()["type"] == "state"
        with pytest.raises(testclient.WebSocketDisconnect), client.websocket_connect(CHANNEL) as second:
            second.receive_text()


@pytest.mark.parametrize("kind", ["stream", "channel"])
def test_there_is_room_for_so_many_viewers_and_no_more(live: Live, kind: str) -> None:
    async def come_and_go() -> None:
        viewers = Viewers(live)
        with contextlib.ExitStack() as there:
            for _ in range(VIEWERS):
                there.enter_context(getattr(viewers, kind)())
            with pytest.raises(Unavailable, match=f"{VIEWERS} viewers"), getattr(viewers, kind)():
                pass
            other = "channel" if kind == "stream" else "stream"
            with getattr(viewers, other)():  # counted apart
                pass
        assert (viewers.streams, viewers.channels) == (0, 0)
        with getattr(viewers, kind)() as viewer:
            assert await viewer.next(5) is not None

    asyncio.run(come_and_go())


def test_the_engine_is_asked_once_whatever_the_number_of_viewers(
    make_live: Callable[..., Live], fake: tinyseg.Segmenter
) -> None:
    live = make_live(lambda: drawn_source(6))
    until(lambda: live.latest)
    live.add(tinyseg.Prompt(box=[100, 60, 200, 160])).result(5)
    with (
        testclient.TestClient(app_of(live, fake), base_url=BASE) as client,
        client.websocket_connect(CHANNEL) as one,
        client.websocket_connect(CHANNEL) as two,
    ):
        one.send_json({"action": "play"})
        seen: list[set[int]] = [set(), set()]
        for channel, frames in zip((one, two), seen):
            while True:
                message = channel.receive_json()
                if message["type"] == "state":
                    frames.add(message["frame"])
                    if message["status"] == "ended":
                        break
    assert max(seen[0]) == max(seen[1]) == 6
    assert live._tracker.steps == 5  # type: ignore[attr-defined]
