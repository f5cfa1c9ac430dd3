"""Pictures of answers: the frame with masks, outlines and prompts drawn over it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import shown
from tinyseg.errors import FrameError, InputError
from tinyseg.prompts import Prompt

if TYPE_CHECKING:  # drawing knows what results look like, not where they are made
    from tinyseg.track.result import ObjectId, TrackResult

# BGR; chosen to stay apart for readers who see few colours (Okabe and Ito).
COLORS = ((178, 114, 0), (0, 94, 213), (115, 158, 0), (167, 121, 204), (0, 159, 230), (233, 180, 86), (66, 228, 240))
POSITIVE, NEGATIVE = (80, 200, 60), (60, 60, 230)
FAR = 1 << 20  # pixels: what lies further outside is drawn there, as OpenCV takes no larger numbers


def overlay(
    frame: NDArray[np.uint8],
    masks: Sequence[NDArray[np.bool_]],
    prompts: Sequence[Prompt] = (),
    colors: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Draw masks (H, W) bool, one colour each, and prompts over a (H, W, 3) BGR uint8 frame; returns a new picture.

    colors: the number of each mask's colour, by default its place in the list. Raises FrameError or InputError.
    """
    _check_picture(frame)
    if not isinstance(masks, (Sequence, np.ndarray)):
        raise InputError(f"masks must be a list of bool arrays (H, W), as out.masks is, but is {shown(masks)}")
    for mask in masks:
        _check_labels("every one of masks", mask, "b", frame)
    numbers: Sequence[int] = range(len(masks)) if colors is None else colors
    if len(numbers) != len(masks) or not all(isinstance(n, (int, np.integer)) for n in numbers):
        raise InputError(f"colors must be a whole number for each of the {len(masks)} masks, but is {shown(colors)}")
    if isinstance(prompts, Prompt) or not all(isinstance(p, Prompt) for p in prompts):
        raise InputError(f"prompts must be a list of tinyseg.Prompt, but is {shown(prompts)}")
    picture: NDArray[np.uint8] = frame.copy()
    line = max(1, round(max(frame.shape[:2]) / 400))
    for mask, number in zip(masks, numbers):
        color = np.array(COLORS[number % len(COLORS)], np.float32)
        picture[mask] = np.round(picture[mask] * 0.45 + color * 0.55).astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, (255, 255, 255), line, cv2.LINE_AA)
    for prompt in prompts:
        if prompt.box is not None:
            x0, y0, x1, y1 = np.clip(np.rint(np.asarray(prompt.box, np.float64)), -FAR, FAR).astype(int).tolist()
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), POSITIVE, 2 * line)
        if prompt.points is not None:
            points = np.clip(np.rint(np.asarray(prompt.points, np.float64)), -FAR, FAR).astype(int).tolist()
            for at, label in zip(points, np.asarray(prompt.labels).tolist()):
                cv2.circle(picture, at, 5 * line, (255, 255, 255), -1, cv2.LINE_AA)
                cv2.circle(picture, at, 4 * line, POSITIVE if label else NEGATIVE, -1, cv2.LINE_AA)
    return picture


def paint_labels(frame: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Colour the regions of a label map (H, W), 0 being none, over a (H, W, 3) BGR frame; returns a new picture.

    One colour a label, neighbours in number far apart in hue; the borders between labels are drawn white.
    Raises FrameError or InputError.
    """
    _check_picture(frame)
    _check_labels("labels", labels, "iu", frame)
    count = int(labels.max(initial=0)) + 1
    hues = np.arange(count) * 0.61803399 % 1.0  # the golden ratio never comes near where it was
    levels = 1.0 - 0.25 * (np.arange(count) % 3)
    hsv = np.stack([hues * 180, np.full(count, 190), levels * 255], 1).astype(np.uint8)
    palette = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2BGR)[0]
    inside = labels > 0
    picture: NDArray[np.uint8] = frame.copy()
    picture[inside] = np.round(frame[inside] * 0.45 + palette[labels[inside]] * 0.55).astype(np.uint8)
    border: NDArray[np.uint8] = np.zeros(labels.shape, np.uint8)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    line = max(1, round(max(frame.shape[:2]) / 400))
    if line > 1:
        border = np.asarray(cv2.dilate(border, np.ones((line, line), np.uint8)), np.uint8)
    picture[border.astype(bool)] = 255
    return picture


def color_of(id: ObjectId) -> int:
    """The number of an object's colour: the same in every frame and every run."""
    return id if isinstance(id, int) else zlib.crc32(id.encode())


def overlay_tracks(frame: NDArray[np.uint8], tracks: Sequence[TrackResult]) -> NDArray[np.uint8]:
    """Draw a tracker's objects, as a list, with their ids over a (H, W, 3) BGR frame; of lost ones the box where they were last.

    Raises FrameError or InputError.
    """
    if isinstance(tracks, Mapping):
        raise InputError("tracks must be a list of TrackResult; of what step gives take list(found.values())")
    seen = [t for t in tracks if t.visible]
    picture = overlay(frame, [t.mask for t in seen], (), [color_of(t.id) for t in seen])
    size = max(frame.shape[:2])
    line, font = max(1, round(size / 400)), max(0.4, size / 1200)
    for track in tracks:
        color = COLORS[color_of(track.id) % len(COLORS)]
        x0, y0, x1, y1 = track.box.tolist()
        name = str(track.id)[:24] if track.visible else f"{track.id!s:.24} lost"
        if not track.visible:
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), color, line)
        (width, height), below = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, font, line)
        left, foot = min(x0, max(picture.shape[1] - width, 0)), max(y0 - below, height + below)
        cv2.rectangle(picture, (left, foot - height - below), (left + width, foot + below), color, -1)
        cv2.putText(picture, name, (left, foot), cv2.FONT_HERSHEY_SIMPLEX, font, (255, 255, 255), line, cv2.LINE_AA)
    return picture


def readings(
    frame: NDArray[np.uint8],
    masks: Sequence[NDArray[np.bool_]],
    scores: Sequence[float],
    prompts: Sequence[Prompt] = (),
) -> NDArray[np.uint8]:
    """One picture (H, K * W, 3) BGR with a panel for each of K masks (H, W), its predicted IoU written in.

    Raises FrameError or InputError.
    """
    if len(masks) != len(scores) or len(masks) == 0:
        raise InputError(f"readings draws masks with a score each, but got {len(masks)} masks and {len(scores)} scores")
    panels = []
    for mask, score in zip(masks, scores):
        panel = overlay(frame, [mask], prompts)
        size = max(panel.shape[:2]) / 700
        at = (round(12 * size), round(32 * size))
        for color, thickness in (((0, 0, 0), 5), ((255, 255, 255), 2)):
            width = max(1, round(thickness * size))
            cv2.putText(panel, f"{score:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, size, color, width, cv2.LINE_AA)
        panels.append(panel)
    return np.concatenate(panels, 1)


def _check_picture(frame: NDArray[np.uint8]) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise FrameError(
            f"masks are drawn on a frame (H, W, 3) of uint8 in BGR, but it is {_kind(frame)}; cv2.cvtColor(frame, "
            "cv2.COLOR_GRAY2BGR) or cv2.COLOR_BGRA2BGR makes one of others"
        )


def _check_labels(name: str, labels: NDArray[np.generic], kinds: str, frame: NDArray[np.uint8]) -> None:
    """What is drawn: of the frame's size, since NumPy would take numbers of another kind for places in the frame."""
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in kinds or labels.shape != frame.shape[:2]:
        wanted = "bool" if kinds == "b" else "whole numbers"
        raise InputError(f"{name} must be a numpy array {frame.shape[:2]} of {wanted}, but is {_kind(labels)}")


def _kind(value: object) -> str:
    return f"{value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
