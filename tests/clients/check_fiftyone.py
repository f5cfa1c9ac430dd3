"""FiftyOne's own importer reads a label folder; in its own environment (scripts/clients). Its database is not needed for that.

python check_fiftyone.py LABELS PICTURES
"""

import json
import sys
from pathlib import Path

import fiftyone.utils.coco as coco
import numpy as np

from tinyseg.rle import decode_rle

labels, pictures = (Path(a).resolve() for a in sys.argv[1:])
content = json.loads((labels / "annotations.json").read_text())
sizes = {Path(i["file_name"]).name: (i["height"], i["width"], i["id"]) for i in content["images"]}
reader = coco.COCODetectionDatasetImporter(
    data_path=str(pictures),
    labels_path=str(labels / "annotations.json"),
    label_types=["segmentations"],
    include_id=True,
)
reader.setup()
found = 0
for path, _, labelled in reader:
    height, width, number = sizes[Path(path).name]
    rows = [r for r in content["annotations"] if r["image_id"] == number]
    detections = labelled["segmentations"].detections if isinstance(labelled, dict) else labelled.detections
    assert len(detections) == len(rows), path
    for detection, row in zip(detections, rows):
        # FiftyOne keeps the part of a mask that is inside its box.
        x, y = (round(v * size) for v, size in zip(detection.bounding_box[:2], (width, height)))
        part = np.zeros((height, width), bool)
        mask = detection.mask[: height - y, : width - x].astype(bool)
        part[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        truth = decode_rle(row["segmentation"])
        assert (part & truth).sum() >= 0.98 * (part | truth).sum(), (path, row["id"])
        found += 1
assert len(reader) == len(content["images"]) and found == len(content["annotations"]) > 0
print(f"fiftyone: ok, {found} masks")
