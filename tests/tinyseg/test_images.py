"""What names an image, and what does not: files, addresses, Pillow's images, arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinyseg
from tests.conftest import PageServer
from tinyseg import fetch
from tinyseg.images import encode_image, open_image, read_image, write_image

PIXELS = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)


def test_a_path_and_an_array(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", PIXELS)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png")):
        pixels, color = open_image(source, "rgb")
        assert color == "bgr" and np.array_equal(pixels, PIXELS)
    pixels, color = open_image(PIXELS, "rgb")
    assert pixels is PIXELS and color == "rgb"


def test_a_pillow_image() -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels, color = open_image(pil.fromarray(PIXELS))
    assert color == "rgb" and np.array_equal(pixels, PIXELS)
    grey, _ = open_image(pil.fromarray(PIXELS[..., 0]))
    assert np.array_equal(grey[..., 0], PIXELS[..., 0])
    with pytest.raises(tinyseg.FrameError, match="8 bits"):
        open_image(pil.fromarray(PIXELS[..., 0].astype(np.int32)))


def test_a_path_where_pixels_belong_names_read_image() -> None:
    with pytest.raises(tinyseg.FrameError, match=r"tinyseg\.read_image\('photo\.jpg'\)"):
        tinyseg.pixels.check_frame("photo.jpg", "bgr")  # type: ignore[arg-type]


def test_a_file_that_opencv_does_not_write(tmp_path: Path) -> None:
    with pytest.raises(tinyseg.DataError, match=r"\.xyz: OpenCV cannot write"):
        write_image(tmp_path / "a.xyz", PIXELS)
    assert not list(tmp_path.iterdir())


def test_addresses(page_server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_image(Path("x.png"), PIXELS)
    page_server.pages.update(
        {
            "/a": (200, data, {}),
            "/moved": (302, b"", {"Location": "/a"}),
            "/ftp": (302, b"", {"Location": "ftp://127.0.0.1/a.png"}),
            "/file": (302, b"", {"Location": "file:///etc/hostname"}),
            "/text": (200, b"<html>", {}),
            "/short": (200, data, {"Content-Length": str(len(data) + 9)}),
        }
    )
    assert np.array_equal(read_image(f"{page_server.url}/a"), PIXELS)
    assert np.array_equal(read_image(f"{page_server.url}/moved"), PIXELS)
    for page, says in (
        ("/ftp", "no http or https"), ("/file", "not allowed"), ("/text", "not an image"), ("/gone", "404"), ("/short", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(tinyseg.DataError, match=says):
            read_image(f"{page_server.url}{page}")
    with pytest.raises(tinyseg.DataError, match="no http or https"):
        fetch.fetch("ftp://127.0.0.1/a.png")
    with pytest.raises(tinyseg.DataError, match="cannot be read"):
        read_image("http://127.0.0.1:9/a.png")
    with pytest.raises(tinyseg.DataError, match="cannot be read"):
        read_image("http://[bad/a.png")
    monkeypatch.setattr(fetch, "MAX_BYTES", 64)
    with pytest.raises(tinyseg.DataError, match="larger than"):
        read_image(f"{page_server.url}/a")
    monkeypatch.setattr(fetch, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(fetch, "TOTAL_SECONDS", -1.0)
    with pytest.raises(tinyseg.DataError, match="did not arrive"):
        read_image(f"{page_server.url}/a")
