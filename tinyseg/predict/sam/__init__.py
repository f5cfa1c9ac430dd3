"""segment-anything's, SAM 2's and samexporter's calls on a tinyseg model: change the import, keep the script.

Prompts go through :class:`tinyseg.Embedding` like all others; here lives what differs: names, layouts, coordinate frames.
"""

from tinyseg.predict.sam.image_predictor import SAM2ImagePredictor
from tinyseg.predict.sam.mask_generator import SamAutomaticMaskGenerator
from tinyseg.predict.sam.model import Sam, build_sam, build_sam2, sam_model_registry
from tinyseg.predict.sam.onnx_pair import SegmentAnythingONNX
from tinyseg.predict.sam.predictor import SamPredictor
from tinyseg.predict.sam.transforms import ResizeLongestSide, sam_view
from tinyseg.predict.sam.video_predictor import SAM2VideoPredictor, build_sam2_video_predictor

__all__ = [
    "ResizeLongestSide",
    "SAM2ImagePredictor",
    "SAM2VideoPredictor",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "SegmentAnythingONNX",
    "build_sam",
    "build_sam2",
    "build_sam2_video_predictor",
    "sam_model_registry",
    "sam_view",
]
