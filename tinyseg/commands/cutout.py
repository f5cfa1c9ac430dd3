"""``tinyseg cutout``: objects without their background, with soft edges."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_path, clipped, path_kind
from tinyseg.commands.inputs import is_stream
from tinyseg.commands.like import add_like_options, read_reference
from tinyseg.commands.options import add_engine_options, add_zoom_option, load_segmenter
from tinyseg.commands.prompts import add_mask_option, add_prompt_options, parse_prompts
from tinyseg.commands.results import folder_for_results, tell_failure, unique_names
from tinyseg.commands.stream import check_apart, exit_code
from tinyseg.commands.words import add_word_options, open_words
from tinyseg.cutout import (
    BACKGROUND_HELP,
    Background,
    Cutout,
    CutoutVideo,
    Follower,
    bgr_frame,
    cut_out,
    open_background,
    salient,
    united,
)
from tinyseg.detect import BoxSource, name_boxes
from tinyseg.errors import DataError, InputError, PromptError
from tinyseg.images import find_images, read_image, write_image
from tinyseg.masks import Masks
from tinyseg.predict.embedding import Embedding
from tinyseg.predict.exemplar import search
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.prompts.text import phrases
from tinyseg.sources import open_source
from tinyseg.system.console import heed_interrupts
from tinyseg.system.folders import ResultFolder
from tinyseg.system.progress import progress

EXAMPLES = """examples:
  tinyseg cutout photo.jpg --auto                                     # photo.cutout.png with alpha
  tinyseg cutout photos/ --auto --background white --out shop --resume
  tinyseg cutout photo.jpg --box 40,60,400,380 --background beach.jpg
  tinyseg cutout film.mp4 --point 320,240 --out object.webm           # VP9 with alpha; .mov: ProRes 4444
  tinyseg cutout street.jpg --text "dog" --detector grounding-dino
  tinyseg cutout photos/ --like mug.npz
  tinyseg cutout 0 --auto --background blur --out call.mp4

exit codes: 0 all done, 1 some images failed or frames were damaged, 2 bad input, 3 model or engine not usable, 130 interrupted"""

# An embedded frame -> the mask to cut out. Raises DataError or PromptError.
Find = Callable[[Embedding], Masks]


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "cutout", help="objects without their background, with soft edges", epilog=EXAMPLES,
        description="Cut objects out of photographs, videos or a camera. All prompts of a picture make one cut-out. In a "
        "video the prompts say what to cut out of the first frame, which is then followed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "source", nargs="+", metavar="SOURCE",
        help="image files, folders or quoted globs; or one video file, camera number or stream url",
    )  # fmt: skip
    add_prompt_options(parser)
    add_mask_option(parser)
    add_word_options(parser)
    add_like_options(parser)
    parser.add_argument("--auto", action="store_true", help="take the salient object, without a prompt")
    parser.add_argument("--background", default="none", metavar="B", help=f"{BACKGROUND_HELP} (default: none)")
    parser.add_argument(
        "--out", default=".", metavar="PLACE",
        help="a folder for images (default: here); for a video a file: .webm or .mov with alpha, .mp4, .mkv or .avi with a "
        "background",
    )  # fmt: skip
    parser.add_argument("--format", choices=("png", "webp"), default="png", help="of images (default: png)")
    parser.add_argument("--trim", action="store_true", help="keep only the part of an image where the cut-out is")
    parser.add_argument(
        "--resume", action="store_true", help="leave out images whose result is there already, and not older"
    )
    add_zoom_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON line for every image, or for the video")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def check_choice_of_prompts(args: argparse.Namespace) -> None:
    """Raises PromptError unless exactly one way to say what to cut out was taken."""
    ways = [
        bool(args.point or args.box or args.mask), args.auto, bool(args.text or args.detector),
        bool(args.like or args.like_parts),
    ]  # fmt: skip
    if sum(ways) != 1:
        raise PromptError(
            "say what to cut out in one way: --auto, or --point, --box or --mask, or --text with --detector, or --like"
        )


def what_to_find(args: argparse.Namespace, load: Callable[[], Segmenter]) -> Find:
    """What the options say to cut out. load: opens the segmenter, for examples. Raises PromptError and DataError."""
    if args.auto:
        return lambda emb: salient(emb, args.zoom)
    if args.like or args.like_parts:
        reference = read_reference(args, load())
        return lambda emb: united_or_nothing(search(emb, reference, zoom=args.zoom))
    source = open_words(args)
    if source is not None:
        return lambda emb: _named(emb, source, args)
    prompts = parse_prompts(args.point, args.box, args.mask)
    return lambda emb: united([_best(emb, p, args.zoom) for p in prompts])


def united_or_nothing(answers: Masks) -> Masks:
    """All found masks as one. Raises DataError where there is none."""
    if not len(answers):
        raise DataError("nothing alike was found")
    return united([answers.only(i) for i in range(len(answers))])


def _named(emb: Embedding, source: BoxSource, args: argparse.Namespace) -> Masks:
    frame = bgr_frame(emb.frame.pixels, "bgr" if emb.frame.bgr else "rgb")
    boxes = source.find(frame, phrases(args.text) if args.text else ())
    if not len(boxes):
        raise DataError(f"the detector found no {args.text or 'object'}")
    return united(name_boxes(emb, boxes, args.zoom).answers)


def _best(emb: Embedding, prompt: Prompt, zoom: str) -> Masks:
    return emb.predict(prompt.points, prompt.labels, prompt.box, prompt.mask, prompt.ambiguous, zoom)


def run(args: argparse.Namespace) -> int:
    check_choice_of_prompts(args)
    background = open_background(args.background)
    opened: list[Segmenter] = []

    def load() -> Segmenter:
        if not opened:
            opened.append(load_segmenter(args))
        return opened[0]

    if names_stream(args.source):
        if args.trim or args.resume or args.format != "png":
            raise InputError("--trim, --resume and --format are for images; a video's format is that of its --out")
        return cut_video(load(), args, what_to_find(args, load), background)
    images = find_images(args.source)
    out = ResultFolder(folder_for_results(args.out))
    images = [Path(image) for image in out.without_own([str(path) for path in images], args.source)]
    names = {
        p: f"{name}.cutout.{args.format}" for p, name in zip(images, unique_names([str(p) for p in images]).values())
    }
    waiting = [p for p in images if not (args.resume and out.holds(names[p], p))]
    if len(waiting) < len(images) and not args.json:
        print(f"{len(images) - len(waiting)} of {len(images)} images are done already")
    find = what_to_find(args, load)
    failed = 0
    for path in progress(waiting, "cutout") if len(waiting) > 1 else waiting:
        try:
            row = cut_image(load(), path, out.place(names[path]), args, find, background)
        except (InputError, MemoryError) as exc:
            failed += 1
            tell_failure(path, exc, args.json)
            continue
        if args.json:
            print(json.dumps(row), flush=True)
        elif len(images) == 1:
            print(f"{path}: {row['area']} px, IoU {row['score']:.2f} -> {row['file']}; {load().info}")
    if not args.json and len(images) > 1:
        print(f"{len(waiting) - failed} of {len(waiting)} images -> {out.folder}")
    return 1 if failed else 0


def names_stream(sources: list[str]) -> bool:
    """Whether one video, camera or stream is named, and no images. Raises InputError where both are, and for standard input."""
    if "-" in sources:
        raise InputError(
            "cutout reads files, cameras and streams, not standard input; give a file, or use tinyseg segment - --format cutout"
        )
    streams = [s for s in sources if is_stream(s)]
    if streams and len(sources) > 1:
        raise InputError(f"give images, or one video: {streams[0]} is a stream among {len(sources)} sources")
    return bool(streams)


def cut_image(
    seg: Segmenter, path: Path, place: Path, args: argparse.Namespace, find: Find, background: Background | None
) -> dict[str, Any]:
    """Cut out of one file, write the result, and return the row that ``--json`` prints."""
    frame = read_image(path)
    answer = find(seg.embed(frame))
    if not answer.areas[answer.best]:
        raise DataError("nothing was found there; give another prompt")
    cutout = cut_out(frame, answer)
    # OpenCV writes BGRA.
    picture = cutout.rgba()[..., [2, 1, 0, 3]] if background is None else cutout.over(background(frame, cutout))
    write_image(place, picture[trimmed(cutout)] if args.trim else picture)
    return {
        "image": str(path), "file": str(place), "width": frame.shape[1], "height": frame.shape[0],
        "area": int(answer.areas[answer.best]), "box": answer.boxes[answer.best].tolist(),
        "score": round(float(answer.scores[answer.best]), 4),
    }  # fmt: skip


def trimmed(cutout: Cutout) -> tuple[slice, slice]:
    """The rows and columns in which a cut-out shows."""
    x, y, w, h = cv2.boundingRect((cutout.alpha > 1 / 510).astype(np.uint8))
    return slice(y, y + h), slice(x, x + w)


def cut_video(seg: Segmenter, args: argparse.Namespace, find: Find, background: Background | None) -> int:
    """Cut out of every frame of a stream. Frames in which nothing is found are wholly transparent."""
    out = check_path("--out", args.out)
    if path_kind(out) == "folder":
        raise InputError("--out must name a video file for a video: .webm or .mov with alpha, .mp4 with a background")
    check_apart(f"--out {clipped(out)}", out, args.source[0])
    source = open_source(args.source[0])
    frames = lost = 0
    interrupted = False
    try:
        video = CutoutVideo(out, source.frame_rate, background)
        try:
            heed_interrupts()
            follower = Follower(seg, find)
            for frame in progress(iter(source.next_frame, None), "cutout"):
                bgr = bgr_frame(frame.pixels, frame.color)
                try:
                    answer = follower.step(bgr)
                except DataError:  # not found yet
                    cutout, lost = empty(bgr), lost + 1
                else:
                    cutout = cut_out(bgr, answer)
                    lost += not answer.areas[0]
                video.write(bgr, cutout)
                frames += 1
        except KeyboardInterrupt:
            interrupted = True
        finally:
            video.close()
    finally:
        source.close()
    if frames == 0 and not interrupted:
        raise DataError(f"{args.source[0]} gave no frame")
    row = {
        "source": args.source[0],
        "file": str(out),
        "frames": frames,
        "without_object": lost,
        "damaged": source.damaged,
    }
    damaged = f", {source.damaged} damaged" if source.damaged else ""
    print(
        json.dumps(row) if args.json else f"{frames} frames ({lost} without the object{damaged}) -> {out}; {seg.info}"
    )
    return exit_code(source.damaged, interrupted)


def empty(bgr: NDArray[np.uint8]) -> Cutout:
    return Cutout(bgr, np.zeros(bgr.shape[:2], np.float32))
