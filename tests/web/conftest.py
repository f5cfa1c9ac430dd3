"""A site of a small model with a coarse "everything", onnxruntime-web from npm, and a host such as ``python -m http.server``."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

import tinyseg
from tests.tinyseg.serve.browser import missing
from tinyseg.errors import TinysegError
from tinyseg.graphs.model import packaged_models
from tinyseg.web import build_site
from tinyseg.web.runtime import NAME, PACKAGE, install

PER_SIDE = 4  # points of the model's "everything", so that tests do not wait for 300 clicks


@pytest.fixture(scope="session")
def onnxruntime_web(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The npm package: of the checkout where ``npm ci`` was run in web/, else fetched once for all workers."""
    here = PACKAGE / "node_modules" / NAME
    if here.is_dir():
        return here
    if shutil.which("npm") is None:
        missing("npm is not installed (Debian: apt-get install npm)")
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "npm"
    with FileLock(f"{shared}.lock"):
        if not (shared / "node_modules" / NAME).is_dir():
            shared.mkdir(exist_ok=True)
            try:
                install(shared)
            except TinysegError as exc:
                missing(str(exc))
    return shared / "node_modules" / NAME


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "small"
    shutil.copytree(packaged_models()["small"], folder)
    card = json.loads((folder / "model.json").read_text())
    card["everything"] = {"points_per_side": PER_SIDE, "coarse_per_side": 2}
    (folder / "model.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def python(small_model: Path) -> tinyseg.Segmenter:
    """What the page's answers are compared with."""
    return tinyseg.load(small_model, engine="onnxruntime", precision="fp32")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, onnxruntime_web: Path, small_model: Path) -> Path:
    out = tmp_path_factory.mktemp("web") / "site"
    build_site(out, small_model, runtime=onnxruntime_web)
    return out


class Host:
    """A folder served without any header of ours; can be stopped and started again on its port."""

    def __init__(self, folder: Path) -> None:
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

        self._make = functools.partial(Handler, directory=str(folder))
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def start(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), self._make)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def host(site: Path) -> Iterator[Host]:
    started = Host(site)
    yield started
    started.stop()
