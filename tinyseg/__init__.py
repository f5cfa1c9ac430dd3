"""Point at anything in a camera frame and get its mask.

seg = tinyseg.load()
emb = seg.embed(frame)                                # (H, W, 3) uint8, BGR as OpenCV reads it
out = emb.predict(points=[[x, y]], labels=[1])        # Masks: .masks (K, H, W) bool, .scores, .logits

Names are imported when they are first used, so that a command starts, and can be stopped, at once.
"""

from __future__ import annotations

import importlib

from tinyseg.version import __version__

TYPE_CHECKING = False  # typing's own is behind an import of milliseconds, in which Ctrl-C is not ours yet
if TYPE_CHECKING:
    from typing import Any

    from tinyseg.cutout.alpha import Cutout, cut_out
    from tinyseg.cutout.saliency import salient
    from tinyseg.errors import (
        CacheError,
        DataError,
        EngineError,
        EngineNotInstalled,
        FrameError,
        InputError,
        ModelError,
        NativeModuleError,
        NotInstalled,
        NotReadyError,
        ParityError,
        PrecisionUnavailable,
        PromptError,
        TinysegError,
        UnknownEngine,
        WrongDevice,
    )
    from tinyseg.graphs.everything_rule import EverythingRule
    from tinyseg.images import read_image
    from tinyseg.loop import Loop, LoopStats
    from tinyseg.masks import Masks
    from tinyseg.predict.embedding import Embedding
    from tinyseg.predict.exemplar import Reference
    from tinyseg.predict.load import load
    from tinyseg.predict.sam import (
        ResizeLongestSide,
        Sam,
        SAM2ImagePredictor,
        SAM2VideoPredictor,
        SamAutomaticMaskGenerator,
        SamPredictor,
        SegmentAnythingONNX,
        build_sam,
        build_sam2,
        build_sam2_video_predictor,
        sam_model_registry,
    )
    from tinyseg.predict.segmenter import Segmenter, SegmenterInfo
    from tinyseg.predict.workspace import Workspace
    from tinyseg.prompts import Prompt
    from tinyseg.regions import Regions
    from tinyseg.track import Tracker, TrackResult

# Where each name lives; tests/test_package.py compares this with the imports above and with __all__.
_HOMES = {
    "tinyseg.cutout.alpha": ("Cutout", "cut_out"),
    "tinyseg.cutout.saliency": ("salient",),
    "tinyseg.errors": (
        "CacheError",
        "DataError",
        "EngineError",
        "EngineNotInstalled",
        "FrameError",
        "InputError",
        "ModelError",
        "NativeModuleError",
        "NotInstalled",
        "NotReadyError",
        "ParityError",
        "PrecisionUnavailable",
        "PromptError",
        "TinysegError",
        "UnknownEngine",
        "WrongDevice",
    ),
    "tinyseg.graphs.everything_rule": ("EverythingRule",),
    "tinyseg.images": ("read_image",),
    "tinyseg.loop": (
        "Loop",
        "LoopStats",
    ),
    "tinyseg.masks": ("Masks",),
    "tinyseg.predict.embedding": ("Embedding",),
    "tinyseg.predict.exemplar": ("Reference",),
    "tinyseg.predict.load": ("load",),
    "tinyseg.predict.sam": (
        "ResizeLongestSide",
        "Sam",
        "SAM2ImagePredictor",
        "SAM2VideoPredictor",
        "SamAutomaticMaskGenerator",
        "SamPredictor",
        "SegmentAnythingONNX",
        "build_sam",
        "build_sam2",
        "build_sam2_video_predictor",
        "sam_model_registry",
    ),
    "tinyseg.predict.segmenter": (
        "Segmenter",
        "SegmenterInfo",
    ),
    "tinyseg.predict.workspace": ("Workspace",),
    "tinyseg.prompts": ("Prompt",),
    "tinyseg.regions": ("Regions",),
    "tinyseg.track": (
        "TrackResult",
        "Tracker",
    ),
}
_NAMES = {name: module for module, names in _HOMES.items() for name in names}
# Modules that can be used after "import tinyseg" alone.
_MODULES = frozenset(
    (
        "cutout",
        "dataset",
        "detect",
        "draw",
        "engines",
        "errors",
        "geometry",
        "graphs",
        "images",
        "label",
        "loop",
        "masks",
        "pixels",
        "predict",
        "prompts",
        "regions",
        "sinks",
        "sources",
        "system",
        "track",
    )
)

__all__ = [
    "CacheError",
    "Cutout",
    "DataError",
    "Embedding",
    "EngineError",
    "EngineNotInstalled",
    "EverythingRule",
    "FrameError",
    "InputError",
    "Loop",
    "LoopStats",
    "Masks",
    "ModelError",
    "NativeModuleError",
    "NotInstalled",
    "NotReadyError",
    "ParityError",
    "PrecisionUnavailable",
    "Prompt",
    "PromptError",
    "Reference",
    "Regions",
    "ResizeLongestSide",
    "SAM2ImagePredictor",
    "SAM2VideoPredictor",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "SegmentAnythingONNX",
    "Segmenter",
    "SegmenterInfo",
    "TinysegError",
    "TrackResult",
    "Tracker",
    "UnknownEngine",
    "Workspace",
    "WrongDevice",
    "__version__",
    "build_sam",
    "build_sam2",
    "build_sam2_video_predictor",
    "cut_out",
    "load",
    "read_image",
    "salient",
    "sam_model_registry",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"tinyseg.{name}")
    raise AttributeError(f"module 'tinyseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
