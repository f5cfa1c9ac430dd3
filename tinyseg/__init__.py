"""Point at anything in a camera frame and get its mask.

seg = tinyseg.load()
emb = seg.embed(frame)                                # (H, W, 3) uint8, BGR as OpenCV reads it
out = emb.predict(points=[[x, y]], labels=[1])        # Masks: .masks (K, H, W) bool, .scores, .logits
"""

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
from tinyseg.loop import Loop, LoopStats
from tinyseg.masks import Masks
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.load import load
from tinyseg.predict.sam import (
    ResizeLongestSide,
    Sam,
    SAM2ImagePredictor,
    SamPredictor,
    SegmentAnythingONNX,
    build_sam,
    build_sam2,
    sam_model_registry,
)
from tinyseg.predict.segmenter import Segmenter, SegmenterInfo
from tinyseg.prompts import Prompt
from tinyseg.version import __version__

__all__ = [
    "CacheError",
    "DataError",
    "Embedding",
    "EngineError",
    "EngineNotInstalled",
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
    "ResizeLongestSide",
    "SAM2ImagePredictor",
    "Sam",
    "SamPredictor",
    "SegmentAnythingONNX",
    "Segmenter",
    "SegmenterInfo",
    "TinysegError",
    "UnknownEngine",
    "WrongDevice",
    "__version__",
    "build_sam",
    "build_sam2",
    "load",
    "sam_model_registry",
]
