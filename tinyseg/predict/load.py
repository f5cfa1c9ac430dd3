"""Opening a model on an engine: :func:`load`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from tinyseg.arguments import check_whole, shown
from tinyseg.engines import CompiledGraph, GraphSource, create_engine
from tinyseg.engines.base import PRECISIONS
from tinyseg.engines.cache import open_cache
from tinyseg.engines.precision import NATIVE
from tinyseg.errors import InputError, WrongDevice
from tinyseg.graphs.compiled import Builder, CompiledFolder, open_compiled, worth_keeping
from tinyseg.graphs.model import Model, open_model
from tinyseg.predict.segmenter import Segmenter

# More than any machine has, and few enough for every engine's own counters.
MOST_THREADS = 1024
log = logging.getLogger("tinyseg.predict")


def load(
    model: str | Path | None = None,
    engine: str = "auto",
    precision: str = "auto",
    *,
    threads: int | None = None,
    streams: int = 1,
) -> Segmenter:
    """Open a model on an engine.

    model: the name of a packaged model (``tinyseg models`` lists them), a model folder or zip, or a folder that
    ``tinyseg compile`` wrote; None for the packaged "base". engine: "auto", "onnxruntime", "openvino" or "tensorrt", with
    or without a device ("onnxruntime:cuda"). precision: "fp32", "bf16", "fp16" or "int8" as engine and model offer;
    "auto" is the fastest that keeps the masks, by the figures in model.json. threads: CPU threads, None for all cores of
    this process. streams: 1 for the lowest latency of one frame; more let as many frames run at the same time, each on a
    share of the threads, for the highest throughput (:class:`tinyseg.Loop`, or your own threads).

    What an engine compiled is compared with the fp32 reference before it is used, and kept in a cache (TINYSEG_CACHE).
    Raises ModelError, UnknownEngine, EngineNotInstalled, PrecisionUnavailable, WrongDevice or CacheError here, ParityError
    and other EngineErrors when a size is first compiled.
    """
    if threads is not None:
        check_whole("threads", threads, 1, MOST_THREADS)
    check_whole("streams", streams, 1, MOST_THREADS)
    if not isinstance(engine, str):
        raise InputError(f"engine must be a name such as 'auto' or 'onnxruntime', but is {shown(engine)}")
    if not (model is None or isinstance(model, (str, Path))):
        raise InputError(f"model must be a packaged model's name, a path, or None, but is {shown(model)}")
    if not isinstance(precision, str):
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, but is {shown(precision)}")
    opened = open_model(model)
    folder = open_compiled(opened)
    if folder is not None:
        return _load_compiled(opened, folder, engine, precision, threads, streams)
    choice = create_engine(engine, precision, threads, streams, opened.precision_facts)
    cache, told = open_cache() if worth_keeping(choice.engine) else (None, "not needed")
    log.info(
        f"model {opened.name} on {choice.engine.name} {choice.engine.version}, {choice.engine.precision} ({choice.reason}); "
        f"cache of built engines: {told}"
    )
    builder = Builder(opened, choice.engine, cache)
    graphs = graphs_for(opened, choice.engine.precision)
    return Segmenter(opened, builder, choice.reason, graphs, told, together=choice.device == "cpu")


def graphs_for(model: Model, precision: str) -> Mapping[str, GraphSource]:
    """The graphs that an engine is given for a precision: the model's own, or fp32 for the engine to lower."""
    if precision in NATIVE and precision not in model.precisions:
        return model.graphs
    return model.variant(precision)


def _load_compiled(
    model: Model, folder: CompiledFolder, engine: str, precision: str, threads: int | None, streams: int
) -> Segmenter:
    if engine not in ("auto", folder.engine) or precision not in ("auto", folder.precision):
        raise WrongDevice(
            f"{folder.path} holds engines for {folder.engine} in {folder.precision}, not for {engine} in {precision}; "
            "load the model that it was compiled from"
        )
    opened = create_engine(folder.engine, folder.precision, threads, streams, model.precision_facts).engine
    folder.require_device(opened)
    build = Builder(model, opened, None)

    def compile_graph(graph: GraphSource, dimensions: Mapping[str, int]) -> CompiledGraph:
        # Sizes that the folder was not compiled for are compiled now, and checked, each time the program starts.
        return folder.restore(opened, graph, dimensions) or build(graph, dimensions)

    graphs = graphs_for(model, folder.precision)
    return Segmenter(model, compile_graph, "compiled folder", graphs, "not needed (compiled folder)")
