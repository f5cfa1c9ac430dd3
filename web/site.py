"""A folder that any host can serve: the page, the runtime, onnxruntime-web and a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyseg.arguments import check_choice
from tinyseg.engines.lower import to_fp16
from tinyseg.errors import DataError, ModelError
from tinyseg.files import read_regular
from tinyseg.graphs.everything_rule import MAX_POINTS_PER_SIDE, read_everything_rule
from tinyseg.graphs.model import Model, open_model
from tinyseg.system.folders import new_folder, require_replaceable
from tinyseg.version import __version__
from tinyseg.web.check import check_answer
from tinyseg.web.runtime import FILES, NAME, PACKAGE, runtime_folder, wanted_version

# Of the live page's files (tinyseg/serve/page) those that this page uses as they are.
SHARED = ("icon.svg", "list.js", "pointing.js", "rle.js", "style.css", "view.js")
PRECISIONS = ("fp32", "int8")
# Of "everything" in a page, whose reader waits: a third of the clicks of 32 a side.
MOST_POINTS_PER_SIDE = 16
CORE = PACKAGE / "core.wasm"
MOST_FILE_BYTES = 128 << 20  # onnxruntime-web's largest has 25 MB

# For hosts that read such a file (Netlify, Cloudflare Pages); elsewhere the service worker adds these headers.
HEADERS = """/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
  X-Content-Type-Options: nosniff
"""


@dataclass(frozen=True)
class Site:
    """What was written: ``files`` are sizes in bytes by name, ``engines`` what the page can run."""

    folder: Path
    files: Mapping[str, int]
    engines: tuple[str, ...]


def build_site(
    out: str | Path,
    model: str | Path | None = None,
    precision: str = "fp32",
    webgpu: bool = False,
    runtime: str | Path | None = None,
) -> Site:
    """Write a static site that segments in the reader's browser. An earlier site at ``out`` is replaced.

    model: packaged name, folder or zip (None: the default). precision: "fp32" or "int8", of the graphs for WASM. webgpu:
    also fp16 graphs and the engine for browsers with WebGPU; needs the compile extra. runtime: a folder that holds the npm
    package onnxruntime-web; None: npm fetches it. Raises InputError, ModelError, PrecisionUnavailable, NotInstalled, DataError.
    """
    check_choice("precision", precision, PRECISIONS)
    place = Path(out)
    require_replaceable(place)
    opened = open_model(model)
    if "compiled" in opened.card:
        raise ModelError(f"{opened.path} is compiled; give the model that it was made from")
    if not CORE.is_file():
        raise DataError(f"{CORE} is missing; install tinyseg again: pip install --force-reinstall tinyseg")
    files = {**_page(), **_model(opened)}
    engines: dict[str, dict[str, str]] = {}

    def add(name: str, provider: str, precision: str, graphs: Mapping[str, bytes]) -> None:
        places = {role: f"model/{role}.{precision}.onnx" for role in ("encoder", "decoder")}
        engines[name] = {**places, "provider": provider, "precision": precision}
        files.update({places[role]: graphs[role] for role in places})

    add("wasm", "wasm", precision, {role: graph.data for role, graph in opened.variant(precision).items()})
    if webgpu:
        plain = {role: graph.data for role, graph in opened.graphs.items()}
        # Raises NotInstalled without the compile extra.
        add("webgpu", "webgpu", "fp16", {role: to_fp16(data) for role, data in plain.items()})
        add("webgpu-fp32", "webgpu", "fp32", plain)  # for a GPU without fp16, where it is asked for
    with runtime_folder(None if runtime is None else Path(runtime)) as folder:
        for provider in {engine["provider"] for engine in engines.values()}:
            files.update({f"ort/{name}": _read(folder / "dist" / name) for name in FILES[provider]})
    site = {
        "tinyseg": __version__, "model": opened.name, "engines": engines, "check": check_answer(opened), "files": _sums(files),
    }  # fmt: skip
    files["site.json"] = _text(json.dumps(site))
    # The service worker's own script names every file by its sum: browsers see that a site has changed by that.
    files["files.js"] = _text(f"self.SITE = {json.dumps({'files': _sums(files)}, indent=1)};")
    files["sw.js"] = _read(PACKAGE / "page" / "sw.js")
    files["_headers"] = _text(HEADERS)
    with new_folder(place) as temporary:
        for name, data in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(data)
    return Site(place, {name: len(data) for name, data in sorted(files.items())}, tuple(engines))


def _page() -> dict[str, bytes]:
    live = PACKAGE.parent / "serve" / "page"
    own = sorted(p for p in (PACKAGE / "page").iterdir() if p.suffix in (".css", ".html", ".js") and p.name != "sw.js")
    return {
        **{name: _read(live / name) for name in SHARED},
        **{p.name: _read(p) for p in own},
        **{f"tinyseg/{p.name}": _read(p) for p in sorted((PACKAGE / "src").glob("*.js"))},
        "tinyseg/core.wasm": _read(CORE),
    }


def _model(model: Model) -> dict[str, bytes]:
    """What the page reads of model.json, and the licences."""
    licence = str(model.card.get("licence", model.card.get("license", "not stated")))
    rule = read_everything_rule(model.card, str(model.path))
    # The page asks all grids of the picture's own input, where a cell is smaller than in the rule's small one.
    margin = round(rule.sure_margin * model.long_side / rule.whole_side) if rule.whole_side else rule.sure_margin
    rule = replace(
        rule, points_per_side=min(rule.points_per_side, MOST_POINTS_PER_SIDE), whole_side=0,
        sure_margin=min(margin, MAX_POINTS_PER_SIDE),
    )  # fmt: skip
    zoom = {"side": model.zoom.side, "factor": model.zoom.factor, "below": model.zoom.below}
    card = {
        "name": model.name, "licence": licence, "long_side": model.long_side, "zoom": zoom, "everything": rule.to_card(),
    }  # fmt: skip
    told = (
        f"tinyseg {__version__}: Apache-2.0\n"
        f"model {model.name}: {licence}\n"
        f"{NAME} {wanted_version()}: MIT, Copyright (c) Microsoft Corporation\n"
    )
    return {"model/model.json": _text(json.dumps(card, indent=1)), "licences.txt": told.encode()}


def _sums(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    return {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in sorted(files.items())}


def _text(text: str) -> bytes:
    return f"{text.rstrip()}\n".encode()


def _read(path: Path) -> bytes:
    try:
        # The file that a link leads to, for package managers link; a pipe that somebody left there would wait for ever.
        return read_regular(path.resolve(), MOST_FILE_BYTES)
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror or exc}") from exc
