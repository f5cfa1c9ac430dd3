"""The calls of segment-anything, SAM 2's image predictor and samexporter, on a tinyseg model: change the import, keep the script.

Prompts go through :class:`tinyseg.Embedding` like all others; here lives what differs: names, layouts, coordinate frames.
"""

from tinyseg.predict.sam.image_predictor import SAM2ImagePredictor
from tinyseg.predict.sam.mask_generator import SamAutomaticMaskGenerator
from tinyseg.predict.sam.model import Sam, build_sam, build_sam2, sam_model_registry
from tinyseg.predict.sam.onnx_pair import SegmentAnythingONNX
from tinyseg.predict.sam.predictor import SamPredictor
from tinyseg.predict.sam.transforms import ResizeLongestSide, sam_view

__all__ = [
    "ResizeLongestSide",
    "SAM2ImagePredictor",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "SegmentAnythingONNX",
    "build_sam",
    "build_sam2",
    "sam_model_registry",
    "sam_view",
]
