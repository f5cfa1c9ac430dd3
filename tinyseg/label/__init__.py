"""Labelling at scale: from one folder to a cluster, and back into training.

report = tinyseg.label.label(["photos/"], "labels", tinyseg.label.Words("dog. red cup", "grounding-dino"), processes=2)
tinyseg.label.merge("corrected.json", "labels")        # what people corrected takes the place of what was found
tinyseg.label.review("labels")                          # labels/review.html: the least certain masks
"""

from tinyseg.label.finding import BoxFile, Everything, Found, Like, Wanted, Words
from tinyseg.label.job import LabelReport, label
from tinyseg.label.merge import MergeReport, merge
from tinyseg.label.review import review

__all__ = [
    "BoxFile",
    "Everything",
    "Found",
    "LabelReport",
    "Like",
    "MergeReport",
    "Wanted",
    "Words",
    "label",
    "merge",
    "review",
]
