"""The site in a real browser, from a host that knows nothing of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tests.conftest import mask_iou
from tests.tinyseg.serve.browser import chromium
from tests.tinyseg.serve.conftest import until
from tests.web.conftest import Host
from tinyseg.engines.cpu import available_cores
from tinyseg.web import build_site

LEAST = 0.99
PHONE = {"width": 390, "height": 844}
# Where pictures of the page are kept for looking at; nowhere by default.
SHOTS = os.environ.get("TINYSEG_SCREENSHOTS")
SECONDS = 300.0  # on a machine that does much else as well: at a load of 17 a core the first page took more than 120
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*CAMERA) as started:
        yield started


class Page:
    """A page that fails its test where it logs an error or asks another host."""

    def __init__(self, browser: Any, url: str, query: str = "", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(1000 * SECONDS)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda told: self.wrong.append(told.text) if told.type == "error" else None)
        self.context.on(
            "request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else self.wrong.append(r.url)
        )
        self.page.goto(url + query)

    def ready(self) -> Page:
        self.page.wait_for_selector("#link[data-good], #link[data-bad]")
        assert self.text("#link") == "ready", self.text("#message")
        return self

    def open(self, path: Path) -> None:
        self.page.evaluate(
            "document.querySelector('#source').textContent = ''"
        )  # the file before may have the same name
        self.page.set_input_files("#file", str(path))
        self.wait(f"document.querySelector('#source').textContent.startsWith({path.name!r})")

    def wait(self, expression: str) -> None:
        """Until the page says so; not from inside the page, whose policy forbids strings as code."""
        until(lambda: self.page.evaluate(expression), SECONDS)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def objects(self, count: int) -> None:
        self.wait(f"document.querySelectorAll('#objects li').length === {count}")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the picture is in the window."""
        place = self.page.evaluate(
            """([x, y]) => { const c = document.querySelector('#picture'), r = c.getBoundingClientRect();
            const s = Math.min(r.width / c.width, r.height / c.height);
            return [r.left + (r.width - c.width * s) / 2 + x * s, r.top + (r.height - c.height * s) / 2 + y * s] }""",
            [x, y],
        )
        return place[0], place[1]

    def save(self, selector: str, path: Path) -> Path:
        with self.page.expect_download() as download:
            self.page.click(selector)
        download.value.save_as(path)
        return path

    def masks(self, folder: Path) -> list[NDArray[np.bool_]]:
        """The page's masks as it writes them for others."""
        document = json.loads(self.save("#save-coco", folder / "masks.json").read_text())
        mask_utils = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
        rows = [row["segmentation"] for row in document["annotations"]]
        return [mask_utils.decode({**row, "counts": row["counts"].encode()}).astype(np.bool_) for row in rows]

    def shoot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))

    def close(self) -> None:
        self.context.close()
        assert not self.wrong


@pytest.fixture(scope="module")
def shared(browser: Any, host: Host) -> Iterator[Page]:
    """One page for all tests that only ask: it loads twice and compiles 14 MB."""
    page = Page(browser, host.url).ready()
    yield page
    page.close()


@pytest.fixture
def page(shared: Page, root: Path) -> Page:
    shared.page.check("input[value=new]")
    shared.open(root / "examples" / "astronaut.jpg")
    return shared


@pytest.fixture
def embedding(python: tinyseg.Segmenter, root: Path) -> tinyseg.Embedding:
    return python.embed(tinyseg.read_image(root / "examples" / "astronaut.jpg"))


def test_it_is_isolated_and_uses_threads(shared: Page) -> None:
    assert shared.page.evaluate("crossOriginIsolated")
    threads = min(4, available_cores())
    assert f"WASM, {threads} thread" in shared.text("#figures") and shared.text("#message") == ""


def test_click_correct_box_undo(page: Page, embedding: tinyseg.Embedding, tmp_path: Path) -> None:
    page.page.mouse.click(*page.at(250, 230))
    page.objects(1)
    assert "Reading" in page.text("#reading")
    (first,) = page.masks(tmp_path)
    click = embedding.predict(points=[[250, 230]], labels=[1])
    assert mask_iou(first, click.masks[click.best]) > 0.95  # the pointer's place is not quite a whole number
    page.page.keyboard.press("m")
    (other,) = page.masks(tmp_path)
    assert max(mask_iou(other, mask) for mask in click.masks) > 0.95 and not np.array_equal(first, other)
    page.page.keyboard.press("Control+z")
    assert np.array_equal(page.masks(tmp_path)[0], first)
    page.page.keyboard.down("Shift")
    page.page.mouse.click(*page.at(150, 400))  # off it: adds
    page.page.keyboard.up("Shift")
    page.wait("document.querySelector('#reading').disabled")
    (corrected,) = page.masks(tmp_path)
    assert corrected[400, 150] and corrected.sum() > first.sum()
    page.page.mouse.move(*page.at(205, 20))
    page.page.mouse.down()
    page.page.mouse.move(*page.at(260, 80), steps=3)
    page.page.mouse.move(*page.at(300, 180))
    page.page.mouse.up()
    page.objects(2)
    assert "answered in" in page.text("#figures")
    assert len(page.masks(tmp_path)) == 2
    page.shoot("web-objects")
    page.page.click("#undo")
    page.objects(1)
    page.page.click("#clear")
    page.page.wait_for_selector("#none:visible")


def test_masks_are_the_python_runtime_s(page: Page, embedding: tinyseg.Embedding, tmp_path: Path) -> None:
    canvas = page.page.locator("#picture")
    canvas.focus()
    for key in ("ArrowLeft", "ArrowUp", "Enter"):  # the cross starts in the middle, at (256, 256); steps of 16
        page.page.keyboard.press(key)
    page.objects(1)
    for key in (*["ArrowRight"] * 3, *["ArrowUp"] * 3, "b", *["ArrowLeft"] * 5, *["ArrowUp"] * 8, "b"):
        page.page.keyboard.press(key)
    page.objects(2)
    asked = embedding.predict(points=[[240, 240]], labels=[1])
    boxed = embedding.predict(box=[208, 64, 289, 193], multimask=False)
    drawn = page.masks(tmp_path)
    assert mask_iou(drawn[0], asked.masks[asked.best]) >= LEAST
    assert mask_iou(drawn[1], boxed.masks[0]) >= LEAST
    # The cut-out is the selected object, within its box.
    picture = cv2.imread(str(page.save("#save-cutout", tmp_path / "cutout.png")), cv2.IMREAD_UNCHANGED)
    ys, xs = drawn[1].nonzero()
    inside = drawn[1][ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    np.testing.assert_array_equal(picture[..., 3] == 255, inside)
    cut = embedding.frame.to_bgr()[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    difference = np.abs(picture[..., :3].astype(int) - cut)[inside]
    assert difference.mean() < 2  # two decoders of one JPEG


def test_everything(page: Page, embedding: tinyseg.Embedding, tmp_path: Path) -> None:
    page.page.click("#everything")
    page.wait("document.querySelector('#spoken').textContent.includes('regions found')")
    regions = embedding.everything()
    drawn = page.masks(tmp_path)
    assert len(drawn) == len(regions) > 2
    for mask in regions:
        assert max(mask_iou(mask, other) for other in drawn) >= LEAST
    page.shoot("web-everything")
    page.page.click("#undo")
    page.objects(0)


def test_paste_drop_and_what_is_no_picture(page: Page, root: Path, tmp_path: Path) -> None:
    coffee = list((root / "examples" / "coffee.jpg").read_bytes())
    give = """([bytes, kind, type, name]) => { const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
        const options = { bubbles: true, cancelable: true };
        document.dispatchEvent(kind === 'paste' ? new ClipboardEvent(kind, { ...options, clipboardData: transfer })
          : new DragEvent(kind, { ...options, dataTransfer: transfer })) }"""
    page.page.evaluate(give, [coffee, "paste", "image/jpeg", "pasted.jpg"])
    page.wait("document.querySelector('#source').textContent.includes('pasted.jpg, 600 x 400')")
    page.page.evaluate(give, [coffee, "drop", "image/jpeg", "dropped.jpg"])
    page.wait("document.querySelector('#source').textContent.includes('dropped.jpg')")
    page.page.evaluate(give, [[1, 2, 3], "drop", "text/plain", "notes.txt"])
    page.wait("document.querySelector('#message').textContent.includes('that is no picture')")
    page.page.evaluate(give, [[1, 2, 3], "drop", "image/png", "broken.png"])
    page.wait("document.querySelector('#message').textContent.includes('broken.png is no picture')")
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((40, 6144, 3), 90, np.uint8))
    page.open(tmp_path / "wide.png")
    page.wait("document.querySelector('#message').textContent === '6144 x 40 was shrunk to 3072 x 20'")
    page.page.mouse.click(*page.at(100, 10))  # and answers, whatever it finds
    page.wait("document.querySelector('#figures').textContent.includes('answered in')")
    cv2.imwrite(str(tmp_path / "line.png"), np.full((1, 9000), 90, np.uint8))
    page.open(tmp_path / "line.png")
    page.wait("document.querySelector('#message').textContent === '9000 x 1 was shrunk to 3072 x 1'")


def test_names_for_everything_that_can_be_used(page: Page) -> None:
    page.page.mouse.click(*page.at(250, 230))
    page.objects(1)
    unnamed = page.page.evaluate(
        "[...document.querySelectorAll('button, input, canvas, progress')]"
        ".filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).length"
    )
    assert unnamed == 0
    assert "object 1 found" in page.page.text_content("#spoken")
    page.page.fill("#objects input[type=text]", "spacesuit")
    page.page.keyboard.press("Enter")
    page.page.focus("#picture")
    page.page.keyboard.press("Delete")
    page.objects(0)


def test_offline_after_the_first_load(browser: Any, site: Path, root: Path) -> None:
    host = Host(site)
    page = Page(browser, host.url).ready()
    try:
        kept = "caches.open('tinyseg /').then((c) => c.keys()).then((k) => k.length)"
        files = len(list(site.rglob("*.*"))) - 3  # without sw.js, files.js and the marker
        until(lambda: page.page.evaluate(kept) == files, SECONDS)
        host.stop()
        page.page.reload()
        page.ready()
        assert page.page.evaluate("crossOriginIsolated")
        page.open(root / "examples" / "coffee.jpg")
        page.page.mouse.click(*page.at(300, 180))
        page.objects(1)
    finally:
        page.close()


def test_a_phone_in_the_dark_with_one_thread(browser: Any, host: Host, root: Path) -> None:
    page = Page(
        browser, host.url, viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark", service_workers="block"
    ).ready()
    try:
        assert "1 thread" in page.text("#figures") and "not offline" in page.text("#message")
        page.open(root / "examples" / "coffee.jpg")
        assert page.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.page.touchscreen.tap(*page.at(300, 180))
        page.objects(1)
        page.page.tap("#modes label:nth-of-type(3)")
        page.page.touchscreen.tap(*page.at(120, 300))
        page.wait("document.querySelector('#spoken').textContent.includes('corrected')")
        small = "[...document.querySelectorAll('#controls button, #saves button')].filter((b) => b.offsetHeight < 40).length"
        assert page.page.evaluate(small) == 0
        page.shoot("web-phone")
    finally:
        page.close()


def test_the_camera(page: Page) -> None:
    page.context.grant_permissions(["camera"])
    page.page.click("#camera")
    page.page.wait_for_selector("#camera[aria-pressed=true]")
    page.wait("document.querySelector('#picture').width > 512")
    page.page.mouse.click(*page.at(320, 180))
    page.wait("document.querySelector('#source').textContent.startsWith('camera.png')")
    page.wait("/answered/.test(document.querySelector('#figures').textContent)")
    assert page.page.get_attribute("#camera", "aria-pressed") == "false"


def test_a_camera_that_is_not_wanted_any_more_is_off(page: Page, root: Path) -> None:
    page.context.grant_permissions(["camera"])
    page.page.evaluate("""() => { const devices = navigator.mediaDevices, ask = devices.getUserMedia.bind(devices);
        window.tracks = []; window.asked = 0;
        devices.getUserMedia = async (...wanted) => { window.asked++; const stream = await ask(...wanted);
          window.tracks.push(...stream.getTracks()); return stream } }""")
    page.page.evaluate("document.querySelector('#camera').click(); document.querySelector('#camera').click()")
    live = "tracks.length === asked && tracks.filter((t) => t.readyState === 'live').length"
    page.wait(f"document.querySelector('#source').textContent === 'camera' && ({live}) === 1")
    page.page.click("#camera")
    page.wait(f"({live}) === 0")
    # A file that is opened while the camera starts is what the user wants.
    page.page.evaluate("document.querySelector('#camera').click()")
    page.open(root / "examples" / "coffee.jpg")
    page.wait(f"asked === 3 && ({live}) === 0")
    assert (
        page.text("#source").startswith("coffee.jpg") and page.page.get_attribute("#camera", "aria-pressed") == "false"
    )


@pytest.mark.parametrize(
    ("name", "content", "status", "told"),
    [
        ("licences.txt", None, "ready", "the service worker does not start (a file of the site did not load"),
        ("site.json", b"<html>", "does not start", "site.json is damaged; put the whole folder on the host again"),
        ("model/decoder.fp32.onnx", b"", "does not start", "model/decoder.fp32.onnx is damaged"),
    ],
)
def test_missing_and_damaged_files_are_told(
    name: str, content: bytes | None, status: str, told: str, browser: Any, site: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(site, tmp_path / "site")
    if content is None:
        (out / name).unlink()
    elif content:
        (out / name).write_bytes(content)
    else:  # of the same size, one bit of a weight
        data = bytearray((out / name).read_bytes())
        data[len(data) // 2] ^= 1
        (out / name).write_bytes(data)
    host = Host(out)
    page = Page(browser, host.url)
    try:
        page.page.wait_for_selector("#link[data-good], #link[data-bad]")
        assert page.text("#link") == status and page.text("#message").startswith(told)
    finally:
        page.context.close()
        host.stop()


def test_two_sites_in_folders_of_one_host(browser: Any, site: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(site, tmp_path / name)
    host = Host(tmp_path)
    page = Page(browser, host.url, "one/").ready()
    try:
        files = len(list(site.rglob("*.*"))) - 3  # without sw.js, files.js and the marker
        for name in ("one", "two"):
            page.page.goto(f"{host.url}{name}/")
            page.ready()
            page.wait(f"caches.open('tinyseg /{name}/').then((c) => c.keys()).then((k) => k.length === {files})")
            assert page.page.evaluate("crossOriginIsolated")
        host.stop()
        page.page.goto(f"{host.url}one/")
        page.ready()
    finally:
        page.close()


def test_what_does_not_start_is_told(browser: Any, host: Host) -> None:
    page = Page(browser, host.url, "?engine=abacus")
    try:
        page.page.wait_for_selector("#link[data-bad]")
        page.wait(
            "document.querySelector('#message').textContent.includes('this site has no engine abacus; it has wasm')"
        )
    finally:
        page.close()


def model_of(page: Page) -> str | None:
    """What a visit shows that waits until the page has started; None where the page loads itself once more meanwhile."""
    from playwright.sync_api import Error  # noqa: PLC0415 - an extra

    with suppress(Error):
        address = page.page.url
        page.page.goto("about:blank")  # without a page of it open, a version that still serves need not end by itself
        page.page.goto(address)
        page.page.wait_for_selector("#link[data-bad]")
        # The browser looks for a newer version while the page starts, or up to seconds later: who reloads faster never sees it.
        page.page.wait_for_timeout(2000)
        return str(page.page.evaluate("fetch('site.json').then((r) => r.json()).then((s) => s.model)"))
    return None


def test_a_newer_site_takes_over_and_a_wrong_engine_is_found(
    browser: Any, small_model: Path, onnxruntime_web: Path, tmp_path: Path
) -> None:
    out, model = tmp_path / "site", tmp_path / "model"
    shutil.copytree(small_model, model)
    build_site(out, model, runtime=onnxruntime_web)
    host = Host(out)
    page = Page(browser, host.url, "?engine=abacus")  # nothing large is loaded
    try:
        page.page.wait_for_selector("#link[data-bad]")
        # The newer site's check expects another mask than its networks give.
        card = json.loads((model / "model.json").read_text())
        card["name"] = "newer"
        (model / "model.json").write_text(json.dumps(card))
        # A host dates files by whole seconds: one that changed within the same second is "not modified".
        time.sleep(1.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "tinyseg.web.site.check_answer",
                lambda _: {"prompt": [5, 5, 60, 60], "box": [0, 0, 9, 9], "runs": [0, 81]},
            )
            build_site(out, model, runtime=onnxruntime_web)
        until(lambda: model_of(page) == "newer", SECONDS)
        page.page.goto(host.url)
        page.page.wait_for_selector("#link[data-bad]")
        page.wait("document.querySelector('#message').textContent.includes(\"masks are not the runtime's\")")
    finally:
        host.stop()
        page.context.close()
