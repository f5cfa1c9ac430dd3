"""Fixtures that all tests share: small frames, and segmenters on every engine."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tinyseg
from tinyseg.graphs.model import packaged_models

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the cache of whoever runs them; all workers of a run share one, so each engine is built once."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "engines"
    cache.mkdir(mode=0o700, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYSEG_CACHE", str(cache))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def fake() -> tinyseg.Segmenter:
    """A segmenter that draws the prompt: geometry and plumbing without a network."""
    return tinyseg.load(engine="fake")


@pytest.fixture(scope="session", params=["onnxruntime", "openvino"])
def real(request: pytest.FixtureRequest) -> tinyseg.Segmenter:
    """The packaged model in fp32 on every CPU engine."""
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed (pip install 'tinyseg[openvino]')")
    return tinyseg.load(engine=request.param, precision="fp32")


@pytest.fixture(scope="session")
def reference() -> tinyseg.Segmenter:
    """The packaged model as the parity gate has it, fp32 on ONNX Runtime: where the network matters and the engine does not."""
    return tinyseg.load(engine="onnxruntime", precision="fp32")


@pytest.fixture(scope="session")
def untracked_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged ``small`` without its tracking decoder, as models are that nobody trained one for."""
    folder = tmp_path_factory.mktemp("untracked") / "small"
    shutil.copytree(packaged_models()["small"], folder)
    card = json.loads((folder / "model.json").read_text())
    del card["tracking"]
    for graphs in (card["graphs"], card["precisions"]["int8"]["graphs"]):
        (folder / graphs.pop("track_decoder")["file"]).unlink()
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def ellipse(width: int, height: int, cx: float, cy: float, rx: float, ry: float) -> NDArray[np.bool_]:
    """A filled ellipse as a (H, W) mask."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


@pytest.fixture
def scene() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A (240, 320, 3) BGR frame with an orange ellipse on blue, and the ellipse's mask."""
    mask = ellipse(320, 240, 170, 110, 70, 50)
    frame = np.full((240, 320, 3), (150, 90, 40), np.uint8)
    frame[mask] = (30, 120, 230)
    noise = np.random.default_rng(0).integers(-8, 9, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8), mask


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return np.count_nonzero(a & b) / max(np.count_nonzero(a | b), 1)


class PageServer:
    """A web server on loopback. pages: path -> (status, body, headers); everything else is 404."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        pages = self.pages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, headers = pages.get(self.path.partition("?")[0], (404, b"", {}))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def page_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PageServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = PageServer()
    threading.Thread(target=served.server.serve_forever, daemon=True).start()
    yield served
    served.server.shutdown()
    served.server.server_close()
