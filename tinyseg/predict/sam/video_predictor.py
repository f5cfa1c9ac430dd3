"""A drop-in for ``sam2.sam2_video_predictor.SAM2VideoPredictor``."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_whole, shown
from tinyseg.errors import InputError, NotReadyError, PromptError
from tinyseg.predict.sam.image_predictor import LOGIT_LIMIT
from tinyseg.predict.sam.model import Sam, as_sam, build_sam, build_sam2
from tinyseg.predict.sam.prompts import sam_prompt
from tinyseg.predict.sam.tensors import HostTensor, as_array, host_tensor
from tinyseg.predict.sam.transforms import sam2_view
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.sources.clip import Clip
from tinyseg.track import Tracker

NO_OBJECT = -1024.0  # SAM 2's logit for objects that are not there
GIVEN = 10.0  # and of masks that the caller gave
Answer = tuple[int, list[Hashable], HostTensor]


@dataclass
class VideoObject:
    """What the caller and the tracker said of an object. points and labels: clicks by frame. boxes: by frame.

    prompted: masks by frame that the caller spoke about. tracked: masks by frame that propagation found; both packed, about
    a kilobyte each.
    """

    points: dict[int, list[list[float]]] = field(default_factory=dict)
    labels: dict[int, list[float]] = field(default_factory=dict)
    boxes: dict[int, list[float]] = field(default_factory=dict)
    prompted: dict[int, bytes] = field(default_factory=dict)
    tracked: dict[int, bytes] = field(default_factory=dict)


class VideoState:
    """What ``init_state`` returns: a video whose frames are read when they are needed, and its objects.

    ``state["num_frames"]``, ``["video_height"]``, ``["video_width"]`` and ``["obj_ids"]`` are there as in SAM 2's dict.
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.objects: dict[Hashable, VideoObject] = {}

    def __getitem__(self, key: str) -> Any:
        values = {
            "num_frames": len(self.clip), "video_height": self.clip.height, "video_width": self.clip.width,
            "obj_ids": list(self.objects),
        }  # fmt: skip
        if key not in values:
            raise InputError(f"the state has no {key!r}; it has {', '.join(values)}")
        return values[key]

    def pack(self, mask: NDArray[np.bool_]) -> bytes:
        """A mask (H, W) of this video, small."""
        return zlib.compress(np.packbits(mask).tobytes(), 1)

    def unpack(self, packed: bytes) -> NDArray[np.bool_]:
        """The mask (H, W) again."""
        height, width = self.clip.height, self.clip.width
        bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8), count=height * width)
        return bits.reshape(height, width).astype(np.bool_)


class SAM2VideoPredictor:
    """SAM 2's video predictor on a tinyseg model: the same calls, shapes and order of results.

    model: from :func:`tinyseg.load`, :func:`build_sam` or :func:`build_sam2`. Logits are arrays that answer to ``cpu()``
    and ``numpy()`` like tensors. What differs: frames are read when they are needed and not kept; all objects share
    encoder and decoder calls; an object is followed from its first prompted frame in the direction of propagation on, and
    has logits of -1024 before it. Memory grows by about a kilobyte for an object and frame, the answers themselves.
    """

    def __init__(self, model: Sam | Segmenter) -> None:
        self.model = as_sam(model)

    @classmethod
    def from_pretrained(cls, model_id: str) -> SAM2VideoPredictor:
        """A predictor for a packaged model's name, or a tinyseg model folder or zip; no hub is asked. Raises ModelError."""
        return cls(build_sam(model_id))

    @property
    def device(self) -> Any:
        return self.model.device

    def init_state(
        self,
        video_path: str | Path,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> VideoState:
        """Open a video file or a folder of images. The other arguments are SAM 2's; frames always wait in their file.

        Raises DataError.
        """
        return VideoState(Clip(video_path))

    def add_new_points_or_box(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: Hashable,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> Answer:
        """Say where an object is in a frame by clicks, a box or both.

        points: (N, 2) x, y in the video's pixels, or in [0, 1] without normalize_coords (SAM 2's meaning of the word).
        labels: (N,), 1 on the object and 0 off it. box: (4,) in the same coordinates. clear_old_points: forget earlier
        clicks on this frame; they and the answer so far are the start of the new one otherwise. Points replace a mask.
        Returns frame_idx, all object ids, and logits (objects, 1, H, W) float32 of this frame. Raises PromptError, InputError.
        """
        state, frame = _checked(inference_state, frame_idx, obj_id)
        if box is not None and not clear_old_points:
            raise PromptError("a box comes before all clicks: give it with clear_old_points=True")
        if points is None and box is None:
            raise PromptError("give points with labels, a box, or both")
        one = state.objects.get(obj_id, VideoObject())
        scale = np.array([1, 1]) if normalize_coords else np.array([state.clip.width, state.clip.height])
        new = [] if points is None else (_pairs(points, "points", None) * scale).tolist()
        marks = [] if labels is None else as_array(labels, "labels").reshape(-1).tolist()
        if points is None and marks:
            raise PromptError("labels were given without points")
        if len(new) != len(marks):
            raise PromptError(f"there are {len(new)} points and {len(marks)} labels; give a label for each point")
        clicks = [*([] if clear_old_points else one.points.get(frame, [])), *new]
        click_labels = [*([] if clear_old_points else one.labels.get(frame, [])), *marks]
        corners = None
        if box is not None:
            corners = (_pairs(box, "box", 2) * scale).reshape(4).tolist()
        elif not clear_old_points:
            corners = one.boxes.get(frame)
        embedding = self.model.segmenter.embed(state.clip[frame])
        view = embedding.geometry
        asked = sam_prompt(clicks or None, click_labels or None, corners, None, view, sam2_view(view))
        before = one.prompted.get(frame) if not clear_old_points else one.tracked.get(frame)
        hint = None
        if before is not None and corners is None:
            hint = state.unpack(before)
            hint = hint if hint.any() else None
        prompt = Prompt(asked.points, asked.labels, asked.box, hint)
        found = embedding.predict(prompt.points, prompt.labels, prompt.box, prompt.mask, prompt.ambiguous)
        state.objects[obj_id] = one
        one.points[frame], one.labels[frame] = clicks, click_labels
        one.boxes.pop(frame, None)
        if corners is not None:
            one.boxes[frame] = corners
        one.prompted[frame] = state.pack(found.masks[found.best])
        own = np.clip(embedding.logits_in_frame(found.logits[found.best][None])[0], -LOGIT_LIMIT, LOGIT_LIMIT)
        return frame, list(state.objects), _stacked(state, frame, {obj_id: own})

    add_new_points = add_new_points_or_box  # SAM 2's older name

    def add_new_mask(self, inference_state: VideoState, frame_idx: int, obj_id: Hashable, mask: Any) -> Answer:
        """Say where an object is in a frame by its mask (H, W), above 0.5 on it; scaled to the video's size if it has another.

        Clicks on this frame are replaced. Returns as :meth:`add_new_points_or_box`; the mask's logits are +-10.
        """
        state, frame = _checked(inference_state, frame_idx, obj_id)
        given = as_array(mask, "mask")
        if given.ndim != 2 or 0 in given.shape:
            raise PromptError(f"mask must have shape (H, W), but has {given.shape}")
        inside = _resized(given.astype(np.float32), state) >= 0.5
        one = state.objects.setdefault(obj_id, VideoObject())
        for clicks in (one.points, one.labels, one.boxes):
            clicks.pop(frame, None)
        one.prompted[frame] = state.pack(inside)
        return frame, list(state.objects), _stacked(state, frame, {})

    def propagate_in_video(
        self,
        inference_state: VideoState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Answer]:
        """Follow all objects; yields frame, ids and logits (objects, 1, H, W) for one frame after the other.

        start_frame_idx: by default the earliest prompted frame. max_frame_num_to_track: that many frames after the first.
        reverse: towards the beginning (from frame 0: nothing). Objects may be added while this runs, for a later call.
        Raises NotReadyError without a prompt.
        """
        state, _ = _checked(inference_state, 0)
        prompted = [frame for one in state.objects.values() for frame in one.prompted]
        if not prompted:
            raise NotReadyError("no object has a prompt; call add_new_points_or_box or add_new_mask first")
        start = min(prompted) if start_frame_idx is None else _checked(state, start_frame_idx)[1]
        count = len(state.clip) if max_frame_num_to_track is None else max_frame_num_to_track
        check_whole("max_frame_num_to_track", count, 0, 1 << 40)
        last = max(start - count, 0) if reverse else min(start + count, len(state.clip) - 1)
        if reverse and start == 0:
            return
        tracker = self.model.segmenter.tracker()
        objects = dict(state.objects)
        numbers: dict[Hashable, int] = {
            obj_id: number for number, obj_id in enumerate(objects)
        }  # the tracker's own ids
        before = {f for one in objects.values() for f in one.prompted if (f > start if reverse else f < start)}
        for told, frame in enumerate(sorted(before, reverse=reverse)):
            tracker.frames = told  # for it, what is said between two steps is about one frame
            for obj_id, one in objects.items():
                if frame in one.prompted:
                    _take(tracker, numbers[obj_id], state, frame, one.prompted[frame])
        for frame in range(start, last - 1, -1) if reverse else range(start, last + 1):
            results = tracker.step(state.clip[frame]) if len(tracker) else {}
            found: dict[Hashable, NDArray[np.float32]] = {}
            for obj_id, one in objects.items():
                if frame in one.prompted:
                    _take(tracker, numbers[obj_id], state, frame, one.prompted[frame])
                    continue
                result = results.get(numbers[obj_id])
                if result is not None:
                    one.tracked[frame] = state.pack(result.mask)
                    found[obj_id] = result.frame_logits() if result.visible else _nothing(state)
            yield frame, list(state.objects), _stacked(state, frame, found)

    def clear_all_prompts_in_frame(
        self, inference_state: VideoState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> Answer | None:
        """Forget what was said of an object in a frame. Returns as :meth:`add_new_points_or_box`, None without need_output."""
        state, frame = _checked(inference_state, frame_idx, obj_id)
        one = _known(state, obj_id)
        for said in (one.points, one.labels, one.boxes, one.prompted):
            said.pop(frame, None)
        return (frame, list(state.objects), _stacked(state, frame, {})) if need_output else None

    def remove_object(
        self, inference_state: VideoState, obj_id: Hashable, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Hashable], list[tuple[int, HostTensor]]]:
        """Forget an object; an unknown one is an InputError only if strict.

        Returns the ids left and, with need_output, (frame, logits) of the frames in which the object had prompts.
        """
        state, _ = _checked(inference_state, 0, obj_id)
        if obj_id not in state.objects and not strict:
            return list(state.objects), []
        frames = sorted(_known(state, obj_id).prompted)
        del state.objects[obj_id]
        shown = [(frame, _stacked(state, frame, {})) for frame in frames] if need_output and state.objects else []
        return list(state.objects), shown

    def reset_state(self, inference_state: VideoState) -> None:
        """Forget all objects of a video."""
        _checked(inference_state, 0)[0].objects.clear()


def build_sam2_video_predictor(
    config_file: str | Path,
    ckpt_path: str | Path | None = None,
    device: Any = "cpu",
    mode: str = "eval",
    apply_postprocessing: bool = True,
) -> SAM2VideoPredictor:
    """A video predictor, as ``sam2.build_sam.build_sam2_video_predictor`` gives it; arguments as of :func:`build_sam2`."""
    return SAM2VideoPredictor(build_sam2(config_file, ckpt_path, device, mode, apply_postprocessing))


def _checked(state: Any, frame_idx: Any, obj_id: Any = None) -> tuple[VideoState, int]:
    if not isinstance(state, VideoState):
        raise InputError(f"inference_state must come from init_state, but is a {type(state).__name__}")
    try:
        hash(obj_id)
    except TypeError as exc:
        raise InputError(f"obj_id must be hashable, such as a number or a string, but is {shown(obj_id)}") from exc
    return state, check_whole("frame_idx", frame_idx, 0, len(state.clip) - 1)


def _pairs(value: Any, name: str, count: int | None) -> NDArray[Any]:
    """``count`` pairs x, y (None: any) in SAM 2's shapes, as (N, 2). Raises InputError, PromptError."""
    array = as_array(value, name)
    if count is None and array.size and array.shape[-1:] != (2,):
        raise PromptError(f"{name} must have shape (N, 2), but have {array.shape}; [[x, y]] is one point")
    if count is not None and array.size != 2 * count:
        raise PromptError(f"{name} must be (x0, y0, x1, y1), shape (4,), but has {array.shape}")
    return array.reshape(-1, 2)


def _known(state: VideoState, obj_id: Hashable) -> VideoObject:
    if obj_id not in state.objects:
        raise InputError(f"there is no object {obj_id!r}; there are {list(state.objects)}")
    return state.objects[obj_id]


def _take(tracker: Tracker, number: int, state: VideoState, frame: int, packed: bytes) -> None:
    mask = state.unpack(packed)
    if mask.any():  # an empty mask says nothing that could be followed
        tracker.add(number, mask=mask, frame=state.clip[frame])


def _resized(mask: NDArray[np.float32], state: VideoState) -> NDArray[np.float32]:
    size = state.clip.width, state.clip.height
    if mask.shape == size[::-1]:
        return mask
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.float32)


def _nothing(state: VideoState) -> NDArray[np.float32]:
    return np.full((state.clip.height, state.clip.width), NO_OBJECT, np.float32)


def _stacked(state: VideoState, frame: int, tracked: dict[Hashable, NDArray[np.float32]]) -> HostTensor:
    """(objects, 1, H, W) logits of a frame: those just found, else what is known of it, else -1024."""
    rows = []
    for obj_id, one in state.objects.items():
        if obj_id in tracked:
            rows.append(tracked[obj_id])
            continue
        packed = one.prompted.get(frame, one.tracked.get(frame))
        rows.append(
            _nothing(state) if packed is None else np.where(state.unpack(packed), np.float32(GIVEN), np.float32(-GIVEN))
        )
    height, width = state.clip.height, state.clip.width
    return host_tensor(np.stack(rows)[:, None] if rows else np.zeros((0, 1, height, width), np.float32))
