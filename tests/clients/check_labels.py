"""Annotation tools' own packages judge a label folder; in the clients' environment (scripts/clients).

python check_labels.py EXAMPLE_FOLDER LABELS PICTURES CORRECTED.json

datumaro reads annotations.json as CVAT's import does ("COCO 1.0"). Label Studio's SDK checks the tasks that
examples/label_studio/tasks.py makes, which then come back as if everything had been accepted.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
from label_studio_sdk.label_interface import LabelInterface

example, labels, pictures, corrected = (Path(a) for a in sys.argv[1:])
sys.path.insert(0, str(example))
import tasks  # noqa: E402

from tinyseg.rle import decode_rle  # noqa: E402

content = json.loads((labels / "annotations.json").read_text())
names = {i["id"]: i["file_name"] for i in content["images"]}
wanted = {}
for row in content["annotations"]:
    wanted.setdefault(Path(names[row["image_id"]]).stem, []).append(decode_rle(row["segmentation"]))

with tempfile.TemporaryDirectory() as folder:
    place = Path(folder)
    (place / "annotations").mkdir()
    shutil.copy(labels / "annotations.json", place / "annotations" / "instances_default.json")
    shutil.copytree(pictures, place / "images" / "default")
    read = Dataset.import_from(str(place), "coco_instances")
    found = 0
    for item in read:
        masks = [a for a in item.annotations if a.type == AnnotationType.mask]
        assert len(masks) == len(wanted.get(item.id, [])), item.id
        for mask, truth in zip(sorted(masks, key=lambda m: m.id), wanted.get(item.id, [])):
            assert ((mask.image > 0) == truth).all(), item.id
            found += 1
    assert len(read) == len(names) and found == len(content["annotations"])

choices = "".join(f'<Label value="{c["name"]}"/>' for c in content["categories"])
config = (
    f'<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">{choices}</BrushLabels></View>'
)
export = list(tasks.tasks_of(labels, "/files/"))
interface = LabelInterface(config)
for task in export:
    errors = interface.validate_prediction(task["predictions"][0], return_errors=True)
    assert not errors, errors
    task["annotations"] = [{"result": task["predictions"][0]["result"]}]
corrected.write_text(json.dumps(tasks.coco_of(export)))
print(f"labels: ok, {found} masks")
