"""Labels of ``tinyseg label`` into Label Studio as tasks with brush labels to correct, and back as a COCO file to merge.

pip install tinyseg label-studio-sdk
python examples/label_studio/tasks.py labels --url '/data/local-files/?d=photos/' --write tasks.json
python examples/label_studio/tasks.py export.json --write corrected.json       # Label Studio's export, format JSON
tinyseg label --merge corrected.json --out labels
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from answers import brush_of

from tinyseg.rle import decode_rle, encode_rle
from tinyseg.shard_rows import read_rows


def tasks_of(labels: Path, url: str) -> Iterator[dict[str, Any]]:
    """A task for every picture of a label folder. url: what stands before a picture's name."""
    for shard in sorted((labels / "shards").glob("*.jsonl.gz")):
        for row in read_rows(shard):
            name = row["image"]["file_name"]
            brushes = [
                brush_of(
                    decode_rle(a["segmentation"]),
                    float(a.get("score", 1.0)),
                    a["category"],
                    "tag",
                    "image",
                    f"{name}-{i}",
                )
                for i, a in enumerate(row["annotations"])
            ]
            scores = [b["score"] for b in brushes]
            prediction = {"result": brushes, "score": min(scores, default=1.0), "model_version": "tinyseg"}
            # The least certain first: Label Studio orders tasks by prediction score.
            yield {"data": {"image": url + name, "tinyseg": name}, "predictions": [prediction]}


def coco_of(export: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Label Studio's JSON export -> COCO; pictures without an annotation are left out: nobody corrected them."""
    from label_studio_sdk.converter.brush import decode_rle as decode_brush  # noqa: PLC0415 - the way there needs none

    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for task in export:
        done = [a for a in task.get("annotations", []) if not a.get("was_cancelled")]
        if not done:
            continue
        number = len(images) + 1
        images.append({"id": number, "file_name": task["data"]["tinyseg"]})
        for result in done[-1]["result"]:
            if result["type"] != "brushlabels":
                continue
            height, width = result["original_height"], result["original_width"]
            pixels = np.array(decode_brush(result["value"]["rle"])).reshape(height, width, 4)
            label = result["value"]["brushlabels"][0]
            rows.append(
                {
                    "id": len(rows) + 1, "image_id": number, "iscrowd": 0, "bbox": [0, 0, width, height],
                    "category_id": categories.setdefault(label, len(categories) + 1),
                    "segmentation": encode_rle(pixels[..., 3] > 0),
                }
            )  # fmt: skip
    named = [{"id": number, "name": name} for name, number in categories.items()]
    return {"images": images, "annotations": rows, "categories": named}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder of tinyseg label, or Label Studio's export as JSON")
    parser.add_argument("--url", default="/data/local-files/?d=", help="what stands before a picture's name")
    parser.add_argument("--write", type=Path, required=True, help="the file to write")
    args = parser.parse_args(arguments)
    if not args.source.exists():
        parser.error(f"there is no {args.source}")
    try:
        if args.source.is_dir():
            content: Any = list(tasks_of(args.source, args.url))
        else:
            content = coco_of(json.loads(args.source.read_text()))
    except ModuleNotFoundError as exc:
        parser.error(f"{exc.name} is not installed; run: pip install label-studio-sdk")
    args.write.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
