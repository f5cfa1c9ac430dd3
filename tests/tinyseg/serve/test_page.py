"""The page in a real browser."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tinyseg
from tests.tinyseg.serve.browser import chromium
from tests.tinyseg.serve.conftest import SIZE, Served, app_of, until
from tinyseg.serve.live import Live
from tinyseg.sources import SyntheticSource

PHONE = {"width": 390, "height": 844}
# Where pictures of the page are kept for looking at; nowhere by default.
SHOTS = os.environ.get("TINYSEG_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def server(make_live: Callable[..., Live], fake: tinyseg.Segmenter) -> Iterator[Served]:
    def make() -> tuple[Live, Any]:
        live = make_live(lambda: SyntheticSource(*SIZE, frame_rate=8.0))
        return live, app_of(live, fake)

    started = Served(make)
    yield started
    started.stop()


@pytest.fixture
def open_page(browser: Any, server: Served) -> Iterator[Callable[..., Any]]:
    """Opens pages; a page that logs an error or asks another host fails the test."""
    contexts, wrong = [], []

    def open_it(**options: Any) -> Any:
        context = browser.new_context(**options)
        context.set_default_timeout(60_000)  # for a machine that does much else
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda r: wrong.append(r.url) if not r.url.startswith((server.url, "data:", "blob:", "ws:")) else None,
        )
        page.goto(server.url)
        wait(page, "document.querySelector('#picture').width === 320")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not wrong


def wait(page: Any, expression: str) -> None:
    """Until the page says so; not from inside the page, whose policy forbids strings as code."""
    until(lambda: page.evaluate(expression))


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the picture is in the window."""
    place = page.evaluate(
        """([x, y]) => { const c = document.querySelector('#picture'), r = c.getBoundingClientRect();
        const s = Math.min(r.width / c.width, r.height / c.height);
        return [r.left + (r.width - c.width * s) / 2 + (x + .5) * s, r.top + (r.height - c.height * s) / 2 + (y + .5) * s] }""",
        [x, y],
    )
    return place[0], place[1]


def drag(page: Any, box: tuple[int, int, int, int]) -> None:
    page.mouse.move(*at(page, box[0], box[1]))
    page.mouse.down()
    page.mouse.move(*at(page, box[2] - 9, box[3] - 9), steps=3)
    page.mouse.move(*at(page, box[2] - 1, box[3] - 1))
    page.mouse.up()


def pixel(page: Any, x: int, y: int) -> list[int]:
    script = "([x, y]) => [...document.querySelector('#picture').getContext('2d').getImageData(x, y, 1, 1).data]"
    return list(page.evaluate(script, [x, y]))


def objects(server: Served) -> Any:
    latest = server.live.latest
    return latest.objects if latest is not None else ()


def test_box_click_correct_rename_remove(open_page: Callable[..., Any], server: Served) -> None:
    page = open_page()
    before = pixel(page, 150, 140)
    drag(page, (100, 60, 200, 160))
    (one,) = until(lambda: objects(server))
    assert all(abs(a - b) <= 2 for a, b in zip(one.box, (100, 60, 200, 160)))
    page.wait_for_selector("#objects li[data-selected]")
    until(lambda: pixel(page, 150, 140)[2] > before[2] + 25)  # its colour is blue
    assert all(abs(a - b) < 6 for a, b in zip(pixel(page, 20, 200), pixel(page, 24, 200)))  # nothing elsewhere
    page.keyboard.down("Shift")
    page.mouse.click(*at(page, 150, 110))  # on its mask: removes
    page.keyboard.up("Shift")
    smaller = until(lambda: objects(server)[0].area < one.area and objects(server)[0].area)
    page.keyboard.down("Shift")
    page.mouse.click(*at(page, 240, 200))  # off it: adds
    page.keyboard.up("Shift")
    assert until(lambda: objects(server)[0].area > smaller)
    shoot(page, "corrected")
    page.fill("#objects input[type=text]", "coffee cup")
    page.keyboard.press("Enter")
    assert until(lambda: objects(server)[0].name == "coffee cup")
    page.mouse.click(*at(page, 40, 40))  # without Shift: another object
    assert until(lambda: len(objects(server)) == 2)
    page.click("#objects li:nth-child(1) button")
    assert until(lambda: [one.id for one in objects(server)] == [2])
    page.click("#clear")
    assert until(lambda: not objects(server))
    page.wait_for_selector("#none:visible")


def test_what_is_drawn_is_the_mask(open_page: Callable[..., Any], server: Served) -> None:
    page = open_page()
    server.live.add(tinyseg.Prompt([[90, 80]], [1]), color="#ff00ff").result(5)
    (one,) = until(lambda: objects(server))
    until(lambda: page.evaluate("document.querySelectorAll('#objects li').length") == 1)
    found = page.evaluate(
        """async (object) => { const { paint } = await import('/page/rle.js');
        const data = new Uint8ClampedArray(4 * 320 * 240);
        return [...paint(data, 320, 240, object, [1, 2, 3], false)].reduce((a, v, i) => v ? (a.push(i), a) : a, []) }""",
        {"box": one.box, "counts": one.counts},
    )
    mask = server.live._objects[1].result.mask  # type: ignore[union-attr]
    assert found == mask.ravel().nonzero()[0].tolist()


def test_play_step_record_download(open_page: Callable[..., Any], server: Served, tmp_path: Path) -> None:
    page = open_page()
    page.keyboard.press(".")
    assert until(lambda: server.live.frames == 2)
    drag(page, (100, 60, 200, 160))
    until(lambda: objects(server))
    page.click("#play")
    until(lambda: server.live.frames > 4)
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    until(lambda: server.live.recording(1).state.frames > 3)
    shoot(page, "recording")
    page.keyboard.press("r")
    page.wait_for_selector("#recordings a")
    for selector, suffix in [
        ("#recordings a:nth-of-type(1)", ".mp4"),
        ("#recordings a:nth-of-type(2)", ".json"),
        ("#downloads li:nth-child(1) a", ".png"),
        ("#downloads li:nth-child(2) a", ".json"),
    ]:
        with page.expect_download() as download:
            page.click(selector)
        assert download.value.suggested_filename.endswith(suffix)
        target = tmp_path / f"got{suffix}"
        download.value.save_as(target)
        assert target.stat().st_size > 100
    assert json.loads((tmp_path / "got.json").read_text())["annotations"]
    page.keyboard.press("Space")
    assert until(lambda: server.live.latest and server.live.latest.status == "paused")


def test_two_viewers_and_a_reload_see_the_same(open_page: Callable[..., Any], server: Served) -> None:
    one, two = open_page(), open_page()
    drag(one, (100, 60, 200, 160))
    two.wait_for_selector("#objects li")
    two.fill("#objects input[type=text]", "seen by two")
    two.keyboard.press("Enter")
    wait(one, "document.querySelector('#objects input[type=text]').value === 'seen by two'")
    one.reload()
    wait(one, "document.querySelector('#objects input[type=text]')?.value === 'seen by two'")
    wait(one, "document.querySelector('#picture').width === 320")


def test_the_server_goes_and_comes_back(open_page: Callable[..., Any], server: Served) -> None:
    page = open_page()
    server.stop()
    page.wait_for_selector("#link[data-bad]")
    assert "no connection" in page.inner_text("#link")
    drag(page, (100, 60, 200, 160))
    wait(page, "document.querySelector('#message').textContent.includes('no connection')")
    server.start()
    page.wait_for_selector("#link:not([data-bad])")
    drag(page, (100, 60, 200, 160))
    assert until(lambda: objects(server))
    page.wait_for_selector("#objects li")


def test_a_phone(open_page: Callable[..., Any], server: Served) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.touchscreen.tap(*at(page, 150, 110))
    (one,) = until(lambda: objects(server))
    page.wait_for_selector("#objects li[data-selected]")
    page.tap("#modes label:nth-of-type(2)")
    page.touchscreen.tap(*at(page, 250, 200))
    assert until(lambda: len(objects(server)) == 1 and objects(server)[0].area > one.area)
    small = page.evaluate(
        "[...document.querySelectorAll('#controls button')].filter((b) => b.offsetHeight < 40).length"
    )
    assert small == 0
    shoot(page, "phone-dark")


def test_by_keyboard_alone(open_page: Callable[..., Any], server: Served) -> None:
    page = open_page()
    page.focus("#picture")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert until(lambda: len(objects(server)) == 1)
    page.keyboard.press("b")
    for key in ["ArrowRight"] * 4 + ["ArrowDown"] * 3:
        page.keyboard.press(key)
    page.keyboard.press("b")
    assert until(lambda: len(objects(server)) == 2)
    box = objects(server)[1].box
    assert box[2] - box[0] > 50 and box[3] - box[1] > 30
    wait(page, "document.querySelector('#spoken').textContent.includes('followed')")  # a reader hears it
    page.keyboard.press("[")
    page.keyboard.press("Delete")
    assert until(lambda: len(objects(server)) == 1)
    names = page.evaluate(
        "[...document.querySelectorAll('button, input, canvas')]"
        ".filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).length"
    )
    assert names == 0  # everything that can be used has a name


def test_the_token_is_asked_for(browser: Any, live: Live, fake: tinyseg.Segmenter) -> None:
    server = Served(lambda: (live, app_of(live, fake, token="correct-horse-battery")))
    page = browser.new_page()
    try:
        page.goto(server.url)
        page.fill("#token", "wrong")
        page.click("button")
        wait(page, "document.querySelector('#message').textContent.includes('wrong')")
        page.fill("#token", "correct-horse-battery")
        page.click("button")
        page.wait_for_selector("#picture", state="attached")  # the page itself, after the one that asks
        wait(page, "document.querySelector('#picture')?.width === 320")
    finally:
        page.close()
        server.stop()
