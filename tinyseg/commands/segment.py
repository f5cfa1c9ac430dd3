"""``tinyseg segment``: masks of photographs from clicks, boxes or masks."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import check_path, clipped, path_kind
from tinyseg.commands.options import add_engine_options, load_segmenter
from tinyseg.detect import BoxSource, name_boxes, open_detector
from tinyseg.draw import overlay, readings
from tinyseg.errors import DataError, FrameError, InputError, PromptError
from tinyseg.fetch import MAX_BYTES, is_url
from tinyseg.files import write_bytes
from tinyseg.images import SUFFIXES, decode_image, encode_image, find_images, read_image, read_mask
from tinyseg.masks import Masks
from tinyseg.predict.second_look import ZOOM_CHOICES
from tinyseg.predict.segmenter import Segmenter
from tinyseg.prompts import Prompt
from tinyseg.prompts.text import phrases
from tinyseg.system.console import tell
from tinyseg.system.folders import ResultFolder
from tinyseg.system.progress import progress

FORMATS = ("png", "mask", "cutout", "coco", "polygons")

EXAMPLES = """examples:
  tinyseg segment photo.jpg --point 320,240
  tinyseg segment photo.jpg --point 320,240 --all-readings --out result.png
  tinyseg segment https://example.org/photo.jpg --box 40,60,400,380 --out - > result.png
  tinyseg segment photo.jpg --box 40,60,400,380 --point 200,300,0 --out results
  tinyseg segment street.jpg --text "dog. red cup" --detector grounding-dino
  tinyseg segment photos/ --box 0,0,320,320 --box 320,0,640,320 --format coco --json

exit codes: 0 all done, 1 some images failed, 2 bad input, 3 model or engine not usable, 130 interrupted"""


def numbers(text: str, counts: Sequence[int], what: str) -> list[float]:
    """Parse "1,2,3"; PromptError unless there are as many numbers as one of ``counts``."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise PromptError(f"{what}, but got {text!r}")
    return values


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "segment", help="masks of photographs from clicks, boxes or masks", epilog=EXAMPLES,
        description="Segment photographs. All points make one prompt; every box is an object of its own; one box and "
        "points together mean the same object.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, folders, quoted globs, http(s) addresses, or - for standard input",
    )
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="X,Y[,0|1]",
        help="a click in pixels; 1 (default) on the object, 0 off it",
    )
    parser.add_argument("--box", action="append", default=[], metavar="X0,Y0,X1,Y1", help="a box in pixels")
    parser.add_argument(
        "--mask", metavar="FILE", help="image of the frame's size, not black where the object roughly is"
    )
    add_word_options(parser)
    parser.add_argument(
        "--out", default=".", metavar="PLACE",
        help="a folder for results (default: here), a file such as result.png for the result of one image, or - for "
        "standard output",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=FORMATS, default="png",
        help="png: masks drawn over the photo; mask: black and white; cutout: transparent background; coco: one "
        "coco.json with RLE; polygons: outlines as JSON (default: png)",
    )  # fmt: skip
    parser.add_argument(
        "--all-readings",
        "--all-masks",
        action="store_true",
        dest="all_readings",
        help="keep all three readings of a click, not only the best; png shows them side by side",
    )
    parser.add_argument(
        "--zoom", choices=ZOOM_CHOICES, default="auto", help="second look at small objects (default: auto)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line for every image")
    add_engine_options(parser)
    parser.set_defaults(run=run)


def add_word_options(parser: argparse.ArgumentParser) -> None:
    """--text, --detector and --text-threshold."""
    group = parser.add_argument_group("words")
    group.add_argument("--text", metavar="WORDS", help='what to look for, as in "dog. red cup", with --detector')
    group.add_argument(
        "--detector", metavar="PLACE",
        help="what finds boxes: a folder of export-detector, or a detector.json (docs/words.md); without --text everything "
        "that it knows",
    )  # fmt: skip
    group.add_argument(
        "--text-threshold", type=float, metavar="T", help="least score of a box (default: the detector's)"
    )


def open_words(args: argparse.Namespace) -> BoxSource | None:
    """The detector that the options name, None without words. Raises PromptError, and what opening it raises."""
    if args.text is None and args.detector is None:
        return None
    if args.detector is None:
        raise PromptError("--text needs a --detector to find boxes: a folder of export-detector, or a detector.json")
    if args.point or args.box or args.mask:
        raise PromptError("--text and --detector find boxes themselves; leave out --point, --box and --mask")
    if args.text is not None:
        phrases(args.text)
    return open_detector(args.detector, args.engine, args.threads, args.text_threshold)


def parse_prompts(
    args: argparse.Namespace, options: str = "--point X,Y, --box X0,Y0,X1,Y1 or --mask FILE"
) -> list[Prompt]:
    """The prompts that the options describe; ``options``: those that the command has. Raises PromptError."""
    points, labels = [], []
    for text in args.point:
        x, y, *label = numbers(text, (2, 3), "--point takes X,Y or X,Y,LABEL")
        points.append((x, y))
        labels.append(label[0] if label else 1.0)
    boxes = [numbers(text, (4,), "--box takes X0,Y0,X1,Y1") for text in args.box]
    hint = read_mask(args.mask) if args.mask else None
    if len(boxes) > 1 and (points or hint is not None):
        raise PromptError("points or a mask can be combined with one --box only; run the command once for each object")
    if not boxes and not points and hint is None:
        raise PromptError(f"say what to segment: {options}")
    shared = {"points": points or None, "labels": labels or None, "mask": hint}
    return [Prompt(box=box, **shared) for box in boxes] or [Prompt(**shared)]


def run(args: argparse.Namespace) -> int:
    source = open_words(args)
    prompts = parse_prompts(args) if source is None else []
    images = find_inputs(args.images)
    target = Target(args.out, args.format, images)
    several = source is not None or len(prompts) > 1 or (args.all_readings and prompts[0].ambiguous)
    if target.single and several and args.format in ("mask", "cutout"):
        raise InputError(f"--format {args.format} writes a file for each mask; give --out a folder")
    if target.stream and args.json:
        raise InputError("--json and --out - both write to standard output; give --out a file or folder")
    told = sys.stderr if target.stream else sys.stdout
    seg = load_segmenter(args)
    target.open()
    names = unique_names(images)
    coco = CocoWriter()
    failed = 0
    for there in read_ahead(seg, progress(images, "segment") if len(images) > 1 else images):
        image = there.image
        try:
            row = segment_one(seg, there, names[image], prompts, args, target, coco, source)
        except (DataError, FrameError, PromptError, MemoryError) as exc:
            failed += 1
            tell(f"tinyseg: {clipped(image)}: {exc or 'not enough memory'}")
            if args.json:
                print(json.dumps({"image": image, "error": str(exc)}), flush=True)
            continue
        if args.json:
            print(json.dumps(row), flush=True)
        elif len(images) == 1:
            found = ", ".join(f"IoU {o['score']:.2f}, {o['area']} px" for o in row["objects"])
            print(f"{image}: {len(row['objects'])} mask(s) ({found}) -> {', '.join(row['files'])}", file=told)
            waited = f", getting the engine ready for its shape {row['compile_ms']:.0f} ms" if row["compile_ms"] else ""
            print(
                f"embedding {row['embed_ms']:.1f} ms, prompting {row['predict_ms']:.1f} ms on this machine{waited}; {seg.info}",
                file=told,
            )
    if args.format == "coco" and failed < len(images):
        target.write("coco.json", coco.content())
    if not args.json and len(images) > 1:
        print(f"{len(images) - failed} of {len(images)} images -> {args.out}")
    return 1 if failed else 0


class Target:
    """Where results go: a folder, one file that the user named, or standard output."""

    def __init__(self, text: str, kind: str, images: Sequence[str]) -> None:
        """What --out says, for results of a --format about images. Raises DataError or InputError."""
        self.stream = text == "-"
        self._file: Path | None = None
        self._folder: ResultFolder | None = None
        self._place = place = check_path("--out", text)
        there = None if self.stream else path_kind(place)
        if there == "folder" or (not self.stream and place.suffix.lower() not in (*SUFFIXES, ".json")):
            if there not in (None, "folder"):
                raise DataError(f"--out {clipped(place)} is no folder; give a folder, or a file ending in .png")
            return
        if len(images) != 1 and kind != "coco":
            raise InputError(
                f"--out {clipped(place)} takes the result of one image, but there are {len(images)}; give a folder"
            )
        if self.stream:
            return
        if there is not None and any(path_kind(Path(i)) and place.samefile(i) for i in images if not is_url(i)):
            raise DataError(f"--out {clipped(place)} is an input; give a folder, or another file")
        wants_json = kind in ("polygons", "coco")
        if wants_json != (place.suffix.lower() == ".json"):
            raise InputError(
                f"--format {kind} writes {'JSON' if wants_json else 'pictures'}, but --out is {clipped(place)}; "
                f"{'name a .json file' if wants_json else 'name a .png file, or add --format polygons or coco'}"
            )
        self._file = place

    @property
    def single(self) -> bool:
        return self.stream or self._file is not None

    @property
    def suffix(self) -> str:
        """Of pictures: the file's, else .png."""
        return ".png" if self._file is None else self._file.suffix

    def open(self) -> None:
        """Make the folder, if it is one. Raises DataError."""
        if not self.single:
            self._folder = ResultFolder(self._place)

    def name(self, name: str) -> str:
        """Where a result of that name in a folder goes, for messages."""
        return "standard output" if self.stream else str(self._file or self._place / name)

    def write(self, name: str, content: bytes) -> str:
        """Write a result; ``name`` is its name in a folder. Returns where it went. Raises DataError."""
        if self.stream:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            write_bytes(self._file if self._folder is None else self._folder.place(name), content)  # type: ignore[arg-type]
        return self.name(name)


def find_inputs(texts: Sequence[str]) -> list[str]:
    """The images that arguments name: addresses and "-" as they are, folders and globs expanded. Raises DataError."""
    found: dict[str, None] = {}
    for text in texts:
        found.update(dict.fromkeys([text] if text == "-" or is_url(text) else [str(p) for p in find_images([text])]))
    return list(found)


def read_input(image: str) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of a file, address or standard input. Raises DataError."""
    if image != "-":
        return read_image(image)
    if sys.stdin is None:
        raise DataError("there is no standard input to read an image from")
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"standard input holds more than {MAX_BYTES >> 20} MiB; give a file")
    return decode_image(data, "standard input")


@dataclass(frozen=True)
class ReadImage:
    """An image that was read ahead: (H, W, 3) BGR, or why it cannot be read; and how long its shape took to compile."""

    image: str
    frame: NDArray[np.uint8] | DataError
    compile_seconds: float = 0.0


def read_ahead(seg: Segmenter, images: Iterable[str]) -> Iterator[ReadImage]:
    """Images in order. The next one is read, and its shape's encoder compiled, while the caller works on the one before."""

    def read(image: str) -> ReadImage:
        try:
            frame = read_input(image)
        except DataError as exc:
            return ReadImage(image, exc)
        before = seg.network.waited_seconds
        seg.network.compiled("encoder", seg.view(frame.shape[1], frame.shape[0]))
        return ReadImage(image, frame, seg.network.waited_seconds - before)

    with ThreadPoolExecutor(1, "tinyseg-ahead") as pool:
        ahead: Future[ReadImage] | None = None
        for image in images:
            following = pool.submit(read, image)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


def segment_one(
    seg: Segmenter,
    there: ReadImage,
    name: str,
    prompts: list[Prompt],
    args: argparse.Namespace,
    target: Target,
    coco: CocoWriter,
    source: BoxSource | None = None,
) -> dict[str, Any]:
    """Segment one image, write its results, and return the row that ``--json`` prints."""
    image, frame = there.image, there.frame
    if isinstance(frame, DataError):
        raise frame
    waited = seg.network.waited_seconds
    start = time.perf_counter()
    emb = seg.embed(frame, color="bgr")
    embedded = time.perf_counter()
    waited_to_embed = seg.network.waited_seconds - waited
    labels: tuple[str, ...] = ()
    if source is not None:
        named = name_boxes(emb, source.find(frame, phrases(args.text) if args.text is not None else ()), args.zoom)
        answers, labels = list(named.answers), named.boxes.labels
        prompts = [Prompt(box=box) for box in named.boxes.xyxy.astype(np.float64)]
    else:
        answers = [emb.predict(p.points, p.labels, p.box, p.mask, p.ambiguous, args.zoom) for p in prompts]
    done = time.perf_counter()
    waited_to_predict = seg.network.waited_seconds - waited - waited_to_embed
    kept = [(a, i) for a in answers for i in (range(len(a)) if args.all_readings else [a.best])]
    if args.format == "coco":
        coco.add(image, frame, kept, labels)
        files = [target.name("coco.json")]
    else:
        files = write_results(frame, kept, prompts, args.format, target, name)
    objects = [describe(a, i) for a, i in kept]
    for row, label in zip(objects, labels):
        row["label"] = label
    return {
        "image": image,
        "width": frame.shape[1],
        "height": frame.shape[0],
        "files": files,
        "objects": objects,
        # Without waiting for compilers, which only the first image of a shape does.
        "embed_ms": round(1e3 * (embedded - start - waited_to_embed), 3),
        "predict_ms": round(1e3 * (done - embedded - waited_to_predict), 3),
        "compile_ms": round(1e3 * (there.compile_seconds + waited_to_embed + waited_to_predict), 3),
        "engine": seg.info.engine,
        "precision": seg.info.precision,
    }


def describe(answer: Masks, index: int) -> dict[str, Any]:
    return {
        "score": round(float(answer.scores[index]), 4),
        "stability": round(float(answer.stability[index]), 4),
        "area": int(answer.areas[index]),
        "box": answer.boxes[index].tolist(),
        "zoom": answer.zoom,
    }


def write_results(
    frame: NDArray[np.uint8], kept: list[tuple[Masks, int]], prompts: list[Prompt], kind: str, target: Target, name: str
) -> list[str]:
    """Write the files of one image; returns their names. Raises DataError or InputError."""
    picture = Path(f"{name}{target.suffix}")
    if kind == "polygons":
        rows = [{**describe(a, i), "polygons": [p.tolist() for p in a.to_polygons()[i]]} for a, i in kept]
        return [target.write(f"{name}.polygons.json", json.dumps(rows).encode())]
    if kind == "png":
        masks = [a.masks[i] for a, i in kept]
        if len(prompts) == 1 and len(kept) > 1:
            drawn = readings(frame, masks, [float(a.scores[i]) for a, i in kept], prompts)
        else:
            drawn = overlay(frame, masks, prompts)
        return [target.write(f"{name}.overlay.png", encode_image(picture, drawn))]
    files = []
    for number, (answer, index) in enumerate(kept):
        if kind == "mask":
            pixels = answer.masks[index].astype(np.uint8) * np.uint8(255)
        else:  # OpenCV writes BGRA
            pixels = answer.cutout(frame, "bgr", index)[..., [2, 1, 0, 3]]
        files.append(target.write(f"{name}.{kind}{number}.png", encode_image(picture, pixels)))
    return files


def unique_names(images: Sequence[str]) -> dict[str, str]:
    """A name for the results of every image: its stem, numbered where another one has that name already.

    Names that differ in case alone are the same to some file systems. A stem that only one image has is kept.
    """
    given = {image: _stem(image) for image in images}
    stems = Counter(stem.casefold() for stem in given.values())
    taken = {stem for stem, count in stems.items() if count == 1}
    names = {}
    for image, stem in given.items():
        name, number = stem, 1
        while name.casefold() in taken and stems[stem.casefold()] > 1:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[image] = name
    return names


def _stem(image: str) -> str:
    if image == "-":
        return "stdin"
    return Path(re.sub(r"[?#].*", "", image) if is_url(image) else image).stem or "image"


class CocoWriter:
    """Collects a COCO results file: images, and annotations with RLE, box, area and score."""

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = {"object": 1}

    def add(
        self, image: str, frame: NDArray[np.uint8], kept: list[tuple[Masks, int]], labels: Sequence[str] = ()
    ) -> None:
        """labels: of the masks, by which words found them; none: all are objects."""
        image_id = len(self._images) + 1
        height, width = frame.shape[:2]
        self._images.append({"id": image_id, "file_name": image, "width": width, "height": height})
        for number, (answer, index) in enumerate(kept):
            x0, y0, x1, y1 = (int(v) for v in answer.boxes[index])
            label = labels[number] if labels else "object"
            category = self._categories.setdefault(label, len(self._categories) + 1)
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1, "image_id": image_id, "category_id": category, "iscrowd": 0,
                    "segmentation": answer.to_coco()[index], "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(answer.areas[index]), "score": round(float(answer.scores[index]), 4),
                }
            )  # fmt: skip

    def content(self) -> bytes:
        """The file, as JSON."""
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        rows = {"images": self._images, "annotations": self._annotations, "categories": categories}
        return json.dumps(rows).encode()
