"""What the runtime really feeds its graphs: the samples that quantization chooses its ranges by.

The public interface is used on real photos with simulated prompts (true boxes, clicks, a corrected second click with
the first answer as hint, second looks), and the feeds of both graphs are kept. So calibration sees the same letterbox,
the same crops and the same kinds of prompts as a user's program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.dataset import Photo
from tinyseg.distill.clips import Clips
from tinyseg.engines import CompiledGraph, create_engine
from tinyseg.engines.base import GraphInfo
from tinyseg.errors import DataError
from tinyseg.graphs.model import Model
from tinyseg.graphs.roles import TRACK_DECODER
from tinyseg.predict.segmenter import Segmenter
from tinyseg.system.progress import progress

Feeds = Mapping[str, NDArray[np.float32]]
MIN_PIXELS = 16
INSTANCES = 2  # of one photo


class RecordingGraph:
    """A compiled graph that keeps a copy of everything it is fed."""

    def __init__(self, graph: CompiledGraph, log: list[Feeds]) -> None:
        self._graph, self._log = graph, log
        self.info: GraphInfo = graph.info

    def runner(self) -> RecordingGraph:
        return self

    def run(self, feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        self._log.append({name: array.copy() for name, array in feeds.items()})
        return self._graph.run(feeds)


def pick_photos(photos: Sequence[Photo], count: int, seed: int = 0) -> list[Photo]:
    """``count`` photos with instances, spread over the sources by chance. Raises DataError if there is none."""
    usable = [p for p in photos if p.instances]
    if not usable:
        raise DataError(
            "quantization needs photos with instances to calibrate on (--data); random numbers would give wrong ranges"
        )
    order = np.random.default_rng(seed).permutation(len(usable))
    return [usable[i] for i in order[:count]]


def record_feeds(model: Model, photos: Sequence[Photo], seed: int = 0) -> dict[str, list[Feeds]]:
    """{"encoder": feeds, "decoder": feeds} of every call that boxes and clicks on the photos' instances cause.

    For a model with a tracking decoder also {"track_decoder": feeds}, of objects that are followed through clips made of
    the photos.
    """
    engine = create_engine("onnxruntime", "fp32", None).engine
    logs: dict[str, list[Feeds]] = {name: [] for name in model.graphs}
    seg = Segmenter(model, lambda g, d: RecordingGraph(engine.compile(g, d), logs[g.name]), "calibration")
    rng = np.random.default_rng(seed)
    for photo in progress(photos, "calibration photos"):
        truths = [m for m in photo.masks() if m.sum() >= MIN_PIXELS]
        if not truths:
            continue
        emb = seg.embed(photo.read())
        for index in rng.permutation(len(truths))[:INSTANCES]:
            truth = truths[index]
            x, y, w, h = cv2.boundingRect(truth.astype(np.uint8))
            emb.predict(box=(x, y, x + w, y + h), multimask=False)
            inside = np.argwhere(truth)
            cy, cx = inside[rng.integers(len(inside))]
            first = emb.predict(points=[[cx, cy]], labels=[1])
            wrong = np.argwhere(first.masks[first.best] ^ truth)
            if len(wrong):
                wy, wx = wrong[rng.integers(len(wrong))]
                emb.predict(
                    points=[[cx, cy], [wx, wy]], labels=[1, int(truth[wy, wx])], mask=first.logits[first.best],
                    multimask=False,
                )  # fmt: skip
    if TRACK_DECODER in logs:
        clips = Clips(photos, [], seed, 0.0)
        for number in range(len(photos)):
            clip = clips[number]
            tracker = seg.tracker()
            tracker.add(0, mask=clip.masks[0], frame=clip.frames[0])
            for frame in clip.frames[1:]:
                tracker.step(frame)
    return logs
