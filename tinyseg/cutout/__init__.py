"""Objects without their background: soft edges, the object's own colours, and what to lay them over.

cutout = tinyseg.cut_out(frame, emb.predict(box=box))   # or tinyseg.salient(emb) for the object that stands out
cv2.imwrite("cup.png", cutout.rgba()[..., [2, 1, 0, 3]])
"""

from tinyseg.cutout.alpha import Cutout, bgr_frame, cut_out, united
from tinyseg.cutout.background import BACKGROUND_HELP, Background, open_background
from tinyseg.cutout.follow import Follower
from tinyseg.cutout.saliency import salient
from tinyseg.cutout.video import CutoutVideo

__all__ = [
    "BACKGROUND_HELP",
    "Background",
    "Cutout",
    "CutoutVideo",
    "Follower",
    "bgr_frame",
    "cut_out",
    "open_background",
    "salient",
    "united",
]
