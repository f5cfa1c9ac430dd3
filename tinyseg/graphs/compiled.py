"""From a model's graphs to compiled ones that may be used: cache, parity gate, and folders of compiled engines."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyseg.engines import CompiledGraph, Engine, GraphSource
from tinyseg.engines.base import CPU_PROVIDER
from tinyseg.engines.cache import EngineCache, entry_key
from tinyseg.errors import ModelError, WrongDevice
from tinyseg.graphs.model import Model
from tinyseg.graphs.package import read_member
from tinyseg.graphs.parity import Parity, Reference, measure
from tinyseg.system.folders import new_folder
from tinyseg.version import __version__

# These are what parity is measured with and against; there is nothing to compare them to.
UNCHECKED = (("onnxruntime", "fp32"), ("fake", "fp32"))


def worth_keeping(engine: Engine) -> bool:
    """Whether opening what an engine built is quicker than building it again.

    Of the unchecked ones that is ONNX Runtime on processors, whose optimised graph opens in a quarter of the time. Other
    providers save none, and the fake engine has nothing to build.
    """
    return (engine.name, engine.precision) not in UNCHECKED or engine.identity().get("provider") == CPU_PROVIDER


class Builder:
    """Compiles graphs of a model on an engine; what was built is compared with the reference before it is used."""

    def __init__(self, model: Model, engine: Engine, cache: EngineCache | None) -> None:
        self.model, self.engine, self.cache = model, engine, cache
        self._reference: Reference | None = None
        self._referring = threading.Lock()  # graphs may be built at the same time
        self.parities: list[Parity] = []

    def __call__(self, graph: GraphSource, dimensions: Mapping[str, int]) -> CompiledGraph:
        """Raises EngineError, ParityError or CacheError."""
        used = _named(graph, dimensions)
        unchecked = (self.engine.name, self.engine.precision) in UNCHECKED
        if self.cache is None or (unchecked and not (self.cache.own and worth_keeping(self.engine))):
            compiled = self.engine.compile(graph, used)
            return compiled if unchecked else self._checked(graph, used, compiled)
        key = entry_key(self.engine.identity(), graph.sha256, used)
        return self.cache.get_or_build(
            key,
            lambda: self.build(graph, used),
            lambda blob: self.engine.restore(blob, graph, used),
            lambda compiled: self._checked(graph, used, compiled),  # asked for in a cache that is not one's own
        )

    def build(self, graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        """Build a graph into bytes whose restored form passed the gate."""
        used = _named(graph, dimensions)
        blob = self.engine.build(graph, used)
        if (self.engine.name, self.engine.precision) not in UNCHECKED:
            self._checked(graph, used, self.engine.restore(blob, graph, used))
        return blob

    def kept(self, graph: GraphSource, dimensions: Mapping[str, int]) -> bytes:
        """An engine's bytes, from the cache where it holds them; opening what this user built is left to who uses it."""
        if self.cache is None:
            return self.build(graph, dimensions)
        used = _named(graph, dimensions)
        return self.cache.get_or_build(
            entry_key(self.engine.identity(), graph.sha256, used),
            lambda: self.build(graph, used),
            lambda blob: blob,
            lambda blob: self._checked(graph, used, self.engine.restore(blob, graph, used)),
        )

    def _checked(self, graph: GraphSource, dimensions: Mapping[str, int], compiled: CompiledGraph) -> CompiledGraph:
        with self._referring:
            if self._reference is None:
                self._reference = Reference(self.model)
        parity = measure(self._reference, graph.name, compiled, dimensions, self.engine.precision)
        self.parities.append(parity)
        parity.require(f"on {self.engine.name} {self.engine.version}")
        return compiled


def _named(graph: GraphSource, dimensions: Mapping[str, int]) -> dict[str, int]:
    """The dimensions that a graph names."""
    names = {d for shape in (*graph.inputs.values(), *graph.outputs.values()) for d in shape if isinstance(d, str)}
    return {name: value for name, value in dimensions.items() if name in names}


@dataclass(frozen=True)
class CompiledFolder:
    """What ``tinyseg compile --out`` wrote of engines: read from the ``compiled`` part of a folder's model.json."""

    path: Path
    engine: str
    precision: str
    identity: Mapping[str, str]
    rows: Mapping[str, Mapping[str, Any]]  # by graph and dimensions

    def require_device(self, engine: Engine) -> None:
        """Raises WrongDevice where the engine that was opened is not the one that the folder was made for."""
        here = dict(engine.identity())
        different = {k: (v, here.get(k)) for k, v in self.identity.items() if here.get(k) != v}
        if different:
            told = "; ".join(f"{k} was {then}, here it is {now}" for k, (then, now) in different.items())
            raise WrongDevice(
                f"{self.path} was compiled for another device or setting ({told}); compile the model again here: "
                f"tinyseg compile MODEL --engine {self.engine} --precision {self.precision} --out DIR"
            )

    def restore(self, engine: Engine, graph: GraphSource, dimensions: Mapping[str, int]) -> CompiledGraph | None:
        """The folder's engine for these shapes, None if it holds none. Raises ModelError if it is damaged."""
        used = _named(graph, dimensions)
        row = self.rows.get(_row_key(graph.name, used))
        if row is None:
            return None
        blob = read_member(self.path, row["file"])
        if hashlib.sha256(blob).hexdigest() != row["sha256"]:
            raise ModelError(f"{self.path}: {row['file']} is damaged; compile the model again with tinyseg compile")
        return engine.restore(blob, graph, used)


def _row_key(graph: str, dimensions: Mapping[str, int]) -> str:
    return f"{graph} {json.dumps(dict(sorted(dimensions.items())))}"


def open_compiled(model: Model) -> CompiledFolder | None:
    """The compiled part of a model, whose card was checked when it was opened; None for a plain model."""
    part = model.card.get("compiled")
    if part is None:
        return None
    rows = {_row_key(r["graph"], r["dimensions"]): r for r in part["engines"]}
    return CompiledFolder(model.path, part["engine"], part["precision"], part["identity"], rows)


def write_folder(
    builder: Builder,
    graphs: Mapping[str, GraphSource],
    shapes: Mapping[str, list[dict[str, int]]],
    out: Path,
    compile_one: Callable[[GraphSource, Mapping[str, int]], bytes],
) -> None:
    """Write a self-contained folder: the model's graphs, and an engine for every shape; replaces ``out`` when whole.

    shapes: dimensions to build for, by graph. Raises DataError where the folder cannot be written.
    """
    model, engine = builder.model, builder.engine
    with new_folder(out) as folder:
        files = [row["file"] for row in model.card["graphs"].values()]
        for part in model.card.get("precisions", {}).values():
            files += [row["file"] for row in part["graphs"].values()]
        for file in files:
            (folder / file).write_bytes(read_member(model.path, file))
        rows = []
        for name, graph in graphs.items():
            for i, dimensions in enumerate(shapes[name]):
                used = _named(graph, dimensions)
                blob = compile_one(graph, used)
                file = f"{name}-{i}.engine"
                (folder / file).write_bytes(blob)
                checksum = hashlib.sha256(blob).hexdigest()
                rows.append({"graph": name, "dimensions": used, "file": file, "sha256": checksum, "bytes": len(blob)})
        card = {
            **model.card,
            "compiled": {
                "made_with": f"tinyseg {__version__}", "engine": engine.name, "precision": engine.precision,
                "identity": dict(engine.identity()), "engines": rows,
            },
        }  # fmt: skip
        (folder / "model.json").write_text(json.dumps(card, indent=1) + "\n")
