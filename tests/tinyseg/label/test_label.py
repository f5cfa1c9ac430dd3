"""One folder in, labels out: what is looked for, in which format, from which kind of input."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tinyseg
from tests.conftest import ellipse, mask_iou
from tests.tinyseg.label.conftest import Job, contents, write_boxes, write_pictures
from tinyseg.cli import main
from tinyseg.dataset import read_photos
from tinyseg.errors import DataError, InputError, PromptError
from tinyseg.graphs.model import PACKAGED
from tinyseg.label import BoxFile, Everything, Like, Words, label, worker
from tinyseg.label import job as job_module
from tinyseg.label.inputs import Shard, make_plan
from tinyseg.label.shard import ShardWriter
from tinyseg.rle import decode_rle


def read(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "annotations.json").read_text())
    return content


def test_boxes_of_a_coco_file_become_masks(job: Job, tmp_path: Path) -> None:
    report = job.label(tmp_path / "out")
    assert (report.images, report.annotations, report.failed, report.shards) == (10, 10, 0, 4)
    content = read(tmp_path / "out")
    assert [i["file_name"] for i in content["images"]] == job.names and [i["id"] for i in content["images"]] == [
        *range(1, 11)
    ]
    assert content["categories"] == [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}]
    for number, row in enumerate(content["annotations"]):
        assert (row["id"], row["image_id"], row["category_id"]) == (number + 1, number + 1, 1 + number % 2)
        mask = decode_rle(row["segmentation"])
        box = np.zeros((64, 96), bool)
        box[8:38, 10 + number % 9 : 50 + number % 9] = True
        assert mask_iou(mask, box) > 0.8 and mask.sum() == row["area"] and 0 < row["score"] <= 1
        ys, xs = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        assert row["bbox"] == [xs[0], ys[0], np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_pycocotools_reads_it(job: Job, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    job.label(tmp_path / "out")
    read = coco.COCO(str(tmp_path / "out" / "annotations.json"))
    assert len(read.getImgIds()) == 10 and len(read.getAnnIds(catIds=read.getCatIds(["dog"]))) == 5
    row = read.loadAnns([1])[0]
    assert read.annToMask(row).sum() == row["area"]


def test_everything(tmp_path: Path, scene: Any) -> None:
    """On the real model: the ellipse is among the regions."""
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), scene[0])
    report = label(
        [tmp_path / "in"], tmp_path / "out", Everything(points_per_side=4), engine="onnxruntime", precision="fp32"
    )
    rows = read(tmp_path / "out")["annotations"]
    assert report.annotations == len(rows) > 0 and {"score", "stability_score"} <= set(rows[0])
    assert max(mask_iou(decode_rle(r["segmentation"]), scene[1]) for r in rows) > 0.9


def test_the_same_thing_as_in_an_example(tmp_path: Path, scene: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "in" / name), scene[0])
    picture = str(tmp_path / "in" / "a.png")
    command = [
        "label",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "onnxruntime",
        "--precision",
        "fp32",
    ]
    command += ["--like", picture, "--like-box", "100,60,240,160", "--most", "1", "--json"]
    assert main(command) == 0
    rows = read(tmp_path / "out")["annotations"]
    assert len(rows) == 2 and all(mask_iou(decode_rle(r["segmentation"]), scene[1]) > 0.9 for r in rows)
    assert json.loads(capsys.readouterr().out)["shards_before"] == 0
    assert main(command) == 0  # the reference is made again, and is the same
    assert json.loads(capsys.readouterr().out)["shards_before"] == 1


def test_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a detector finds by name; the detector here is a Python function."""
    from tinyseg import detect  # noqa: PLC0415
    from tinyseg.label import finding  # noqa: PLC0415

    source = detect.FunctionSource(lambda frame: ([[10, 8, 50, 38], [60, 8, 90, 38]], ["dog", "cup"], [0.9, 0.8]))
    monkeypatch.setattr(finding, "open_detector", lambda *_: source)
    write_pictures(tmp_path / "in", 2)
    places = [write_card(tmp_path / name / "detector", name.encode()) for name in ("one", "other")]
    label([tmp_path / "in"], tmp_path / "out", finding.Words("cup. dog", str(places[0])), engine="fake")
    content = read(tmp_path / "out")
    assert [c["name"] for c in content["categories"]] == ["cup", "dog"]
    assert [a["category_id"] for a in content["annotations"]] == [2, 1, 2, 1]
    again = shutil.copytree(places[0], tmp_path / "moved" / "detector")
    assert (
        label([tmp_path / "in"], tmp_path / "out", finding.Words("cup. dog", str(again)), engine="fake").labelled == 0
    )
    described = shutil.copytree(places[0], tmp_path / "described" / "detector")
    card = json.loads((described / "detector.json").read_text())
    (described / "detector.json").write_text(json.dumps({**card, "labels": ["dog", "cup"]}))  # of the same graph
    for other in (places[1], described):
        with pytest.raises(
            DataError, match=r"wanted is .*detector [0-9a-f]{16}.* there and .*detector [0-9a-f]{16}.* now"
        ):
            label([tmp_path / "in"], tmp_path / "out", finding.Words("cup. dog", str(other)), engine="fake")


def test_words_that_the_detector_does_not_know_are_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "in", 2)
    place = write_card(tmp_path / "detector", b"graph")
    arguments = [
        "label",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "fake",
        "--detector",
        str(place),
    ]
    assert main([*arguments, "--text", "dog. horse"]) == 2
    assert "does not know 'horse'; it knows cup, dog" in capsys.readouterr().err
    card = json.loads((place / "detector.json").read_text())
    text = {"length": 8, "separators": [1], "tokenizer": "graph.onnx"}
    (place / "detector.json").write_text(json.dumps({**card, "kind": "grounding-dino", "text": text}))
    assert main(arguments) == 2
    assert "Grounding DINO looks for words; give some" in capsys.readouterr().err
    assert not (tmp_path / "out" / "label.json").exists()


def write_card(folder: Path, graph: bytes) -> Path:
    """A detector of which nothing but the description is read."""
    folder.mkdir(parents=True)
    (folder / "graph.onnx").write_bytes(graph)
    card = {
        "format": 1, "kind": "boxes", "file": "graph.onnx", "input": {"name": "x", "width": 64, "height": 64},
        "outputs": ["b", "s"], "scores": "s", "box_format": "xyxy", "unit": "pixels", "labels": ["cup", "dog"],
    }  # fmt: skip
    (folder / "detector.json").write_text(json.dumps(card))
    return folder


def test_videos_by_frames_and_by_tracks(root: Path, tmp_path: Path) -> None:
    clip = root / "examples" / "clip.mp4"
    boxes = tmp_path / "boxes.json"
    names = ["clip.mp4/000000.jpg"]
    rows = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [28, 132, 89, 80]}]
    images = [{"id": 1, "file_name": names[0], "width": 320, "height": 240}]
    boxes.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cup"}]}))
    report = label(
        [clip], tmp_path / "tracks", BoxFile(str(boxes)), every=4, tracks=1, engine="onnxruntime", precision="fp32"
    )
    content = read(tmp_path / "tracks")
    assert report.images == 14 and report.shards == 1
    assert [i["file_name"] for i in content["images"]] == [f"clip.mp4/{n:06d}.jpg" for n in range(0, 56, 4)]
    assert len(content["annotations"]) >= 8 and {a["track_id"] for a in content["annotations"]} == {1}
    # Frames by themselves: in shards, each of which finds its place in the video, in whatever order.
    report = label([clip], tmp_path / "frames", BoxFile(str(boxes)), every=14, shard=1, engine="fake")
    assert report.shards == 4 and report.images == 4 and report.annotations == 1
    kept = tmp_path / "frames" / "images"
    frame = cv2.imread(str(kept / "clip.mp4" / "000028.jpg"))
    capture = cv2.VideoCapture(str(clip))
    wanted = [capture.read()[1] for _ in range(29)][-1]
    assert np.abs(frame.astype(int) - wanted).mean() < 4
    same = cv2.imread(str(tmp_path / "tracks" / "images" / "clip.mp4" / "000028.jpg"))
    np.testing.assert_array_equal(frame, same)
    other = label([clip], tmp_path / "two", BoxFile(str(boxes)), every=14, shard=1, engine="fake", processes=2)
    assert other.images == 4 and contents(tmp_path / "two") == contents(tmp_path / "frames")


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_tars_in_and_out(job: Job, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "p.tar", "w") as tar:
        for name in job.names:
            add(tar, name, (job.inputs / name).read_bytes())
            add(tar, name.replace(".png", ".txt"), b"caption")
        add(tar, job.names[0], b"again")
        add(tar, "../out.png", b"no")
    boxes = BoxFile(str(job.boxes))
    report = label([packed], tmp_path / "out", boxes, engine="fake", shard=4, format="webdataset")
    assert report.images == 10 and report.failed == 2 and report.shards == 3
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert "twice" in errors[0]["error"] and "leads out" in errors[1]["error"]
    assert not (tmp_path / "out.png").exists()
    with tarfile.open(tmp_path / "out" / "shards" / "00000.tar") as tar:
        names = tar.getnames()
        assert names[:2] == ["00000000000.png", "00000000000.json"] and len(names) == 8
        assert tar.extractfile(names[0]).read() == (job.inputs / job.names[0]).read_bytes()  # type: ignore[union-attr]
        row = json.loads(tar.extractfile(names[1]).read())  # type: ignore[union-attr]
    assert row["image"]["file_name"] == "p.tar/000.png" and len(row["annotations"]) == 1
    photos = read_photos(tmp_path / "out")
    assert len(photos) == 10 and photos[3].read().shape == (64, 96, 3) and len(photos[3].instances) == 1
    # Tars in, COCO out: members are kept as files.
    label([packed], tmp_path / "coco", boxes, engine="fake", shard=100)
    assert (tmp_path / "coco" / "images" / "p.tar" / "003.png").read_bytes() == (job.inputs / "003.png").read_bytes()
    assert {a["area"] for a in read(tmp_path / "coco")["annotations"]} == {
        a["area"] for a in json.loads(json.dumps(read_rows_of(tmp_path / "out")))
    }


def read_rows_of(out: Path) -> list[dict[str, Any]]:
    from tinyseg.shard_rows import read_rows  # noqa: PLC0415

    return [a for p in sorted((out / "shards").glob("*.tar")) for row in read_rows(p) for a in row["annotations"]]


def test_yolo_outlines(job: Job, tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    out = tmp_path / "out"
    report = job.label(out, format="yolo")
    assert report.annotations == 10 and (out / "images" / "004.png").exists()
    # As Ultralytics reads it: data.yaml beside images/ and labels/ of the same stems.
    read = supervision.DetectionDataset.from_yolo(
        str(out / "images"), str(out / "labels"), str(out / "data.yaml"), force_masks=True
    )
    assert read.classes == ["cup", "dog"] and len(read) == 10
    job.label(tmp_path / "coco")
    truth = {
        i["file_name"]: i["id"] for i in json.loads((tmp_path / "coco" / "annotations.json").read_text())["images"]
    }
    rows = json.loads((tmp_path / "coco" / "annotations.json").read_text())["annotations"]
    for path, _, detections in read:
        mask = decode_rle(next(r for r in rows if r["image_id"] == truth[Path(path).name])["segmentation"])
        assert mask_iou(detections.mask[0], mask) > 0.97


def test_yolo_outlines_of_parts_and_holes() -> None:
    from tinyseg.label.gather import yolo_outline  # noqa: PLC0415

    mask = ellipse(100, 80, 25, 40, 15, 20) | ellipse(100, 80, 75, 30, 12, 18)
    hole = mask & ~ellipse(100, 80, 25, 40, 6, 6)
    outline = yolo_outline(hole)
    assert outline is not None
    drawn = np.zeros((80, 100), np.uint8)
    cv2.fillPoly(drawn, [np.round(outline).astype(np.int32)], 1)
    assert mask_iou(drawn > 0, mask) > 0.95  # both parts, the hole filled
    assert yolo_outline(np.zeros((8, 8), bool)) is None


def test_two_suffixes_of_one_stem_are_refused_for_yolo(job: Job, tmp_path: Path) -> None:
    (job.inputs / "000.jpg").write_bytes((job.inputs / "000.png").read_bytes())
    with pytest.raises(InputError, match="share one label file"):
        job.label(tmp_path / "out", format="yolo")
    packed = tmp_path / "p.tar"
    with tarfile.open(packed, "w") as tar:
        for name in ("a.png", "q/cat.jpg", "q/cat.png", "a.png"):
            add(tar, name, (job.inputs / "000.png").read_bytes())
    with pytest.raises(InputError, match=r"p.tar/q/cat.jpg and p.tar/q/cat.png would share one label file"):
        label([packed], tmp_path / "out", Everything(points_per_side=1), engine="fake", format="yolo", shard=1)


def test_a_name_of_a_tar_comes_twice_however_it_is_written(job: Job, tmp_path: Path) -> None:
    packed = tmp_path / "p.tar"
    names = ["q/./cat.png", "q/cat.png", "q//cat.png", "./q/cat.png"]
    with tarfile.open(packed, "w") as tar:
        for name, source in zip(names, job.names):
            add(tar, name, (job.inputs / source).read_bytes())
    report = label([packed], tmp_path / "out", Everything(points_per_side=1), engine="fake")
    assert (report.images, report.failed) == (1, 3)
    assert [i["file_name"] for i in read(tmp_path / "out")["images"]] == ["p.tar/q/cat.png"]
    assert (tmp_path / "out" / "images" / "p.tar" / "q" / "cat.png").read_bytes() == (
        job.inputs / "000.png"
    ).read_bytes()


def test_supervision_reads_the_coco_file(job: Job, tmp_path: Path) -> None:
    supervision = pytest.importorskip(
        "supervision", minversion="0.28", reason="supervision 0.28 is not installed: older ones read no run lengths"
    )
    job.label(tmp_path / "out")
    read = supervision.DetectionDataset.from_coco(
        str(job.inputs), str(tmp_path / "out" / "annotations.json"), force_masks=True
    )
    assert len(read) == 10 and read.classes == ["cup", "dog"]
    rows = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    for (_, _, detections), row in zip(read, rows):
        np.testing.assert_array_equal(detections.mask[0], decode_rle(row["segmentation"]))


def test_training_reads_the_folder_as_it_is(job: Job, tmp_path: Path) -> None:
    job.label(tmp_path / "out")
    photos = read_photos(tmp_path / "out")
    assert [p.name for p in photos] == job.names and photos[0].read().shape == (64, 96, 3)
    masks = [decode_rle(a["segmentation"]) for a in read(tmp_path / "out")["annotations"]]
    for photo, mask in zip(photos, masks):
        np.testing.assert_array_equal(photo.masks()[0], mask)
    job.inputs.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="--images copy"):
        read_photos(tmp_path / "out")


def test_equal_names_from_two_folders_stay_apart(tmp_path: Path) -> None:
    names = [write_pictures(tmp_path / f, 2, seed) for seed, f in enumerate(("a", "b"))]
    boxes = write_boxes(tmp_path / "boxes.json", [f"{f}/{n}" for f, some in zip("ab", names) for n in some])
    inputs = [tmp_path / "a", tmp_path / "b"]
    report = label(inputs, tmp_path / "out", BoxFile(str(boxes)), engine="fake", images="copy")
    assert [i["file_name"] for i in read(tmp_path / "out")["images"]] == [
        "a/000.png",
        "a/001.png",
        "b/000.png",
        "b/001.png",
    ]
    assert report.annotations == 4 and report.copies == 0
    for folder in "ab":
        kept = tmp_path / "out" / "images" / folder / "000.png"
        assert kept.read_bytes() == (tmp_path / folder / "000.png").read_bytes()
    with pytest.raises(DataError, match="longer names"):  # whose boxes are these?
        label(inputs, tmp_path / "two", BoxFile(str(write_boxes(tmp_path / "b.json", names[0]))), engine="fake")


def test_the_output_may_lie_in_the_input(job: Job) -> None:
    job.label(job.inputs / "labels", images="copy")
    assert job.label(job.inputs / "labels", images="copy").shards_before == 4
    job.label(job.inputs)
    assert job.label(job.inputs).images == 10


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_names_with_dots_stay_in_the_output(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,), (other,) = (write_pictures(tmp_path / "w" / f, 1, seed) for seed, f in enumerate("xp"))
    mine = (tmp_path / "w" / "p" / other).read_bytes()
    mended = tmp_path / "w" / "p" / "mended.png"
    mended.write_bytes(mine)
    before = mended.stat().st_ino
    monkeypatch.chdir(tmp_path / "w" / "x")
    inputs = [one, "../../w/p/mended.png", "./../x/" + one]  # the last one is the first again
    options: dict[str, Any] = {"engine": "fake", "images": "copy", "format": format}
    report = label(inputs, "labels", Everything(points_per_side=1), **options)
    assert report.images == 2 and mended.stat().st_ino == before  # not so much as replaced by itself
    assert (tmp_path / "w" / "x" / "labels" / "images" / "p" / "mended.png").read_bytes() == mine
    assert not list((tmp_path / "w" / "p").glob("*.txt"))


def test_parents_of_links_are_where_links_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "far" / "in", 1)
    (tmp_path / "far" / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    monkeypatch.chdir(tmp_path)
    for inputs in (["link/../in/000.png"], ["link/../in/*.png"]):
        plan = make_plan(inputs)
        assert plan.root == tmp_path / "far" / "in" and plan.shards[0].files == ("000.png",)


def test_names_that_lead_out_are_not_written(job: Job, tmp_path: Path) -> None:
    """Whatever made such a name: neither a picture nor a label file goes elsewhere."""
    setup = worker.Setup(
        BoxFile(str(job.boxes)), tmp_path / "out", job.inputs, ".jsonl.gz", "copy", 1, 0, None, "fake", "fp32", 1
    )
    (tmp_path / "out" / "shards").mkdir(parents=True)
    *_, stats = worker.Worker(setup).label(Shard(0, "files", ("000.png", "../in/001.png")))
    assert stats.images == 1 and [e["name"] for e in stats.errors] == ["../in/001.png"]
    job.label(tmp_path / "yolo", format="yolo")
    with ShardWriter(tmp_path / "yolo", 0, ".jsonl.gz") as writer:
        writer.add({"image": {"file_name": "../../out.png", "width": 96, "height": 64}, "annotations": []}, None)
    with pytest.raises(DataError, match="leads out of it"):
        job.label(tmp_path / "yolo", format="yolo")
    assert not (tmp_path / "out.txt").exists()


def test_the_labels_are_no_input_however_they_are_named(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    (job.inputs.parent / "link").symlink_to(job.inputs)
    monkeypatch.chdir(job.inputs)
    for number, (given, out) in enumerate(
        [(".", "../in/{}"), ("*", "{}"), ("**/*.png", "./{}"), ("../link", "{}"), ("../link/*", "{}")]
    ):
        wanted, out = Everything(points_per_side=1), out.format(f"labels{number}")
        assert label([given], out, wanted, engine="fake", images="copy").images == 10
        assert label([given], out, wanted, engine="fake", images="copy").shards_before == 1, given
        shutil.rmtree(out)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name what to label"),
        (["nowhere/"], "matches no file"),
        (["{in}", "--text", "dog"], "--detector"),
        (["{in}", "--boxes", "{boxes}", "--detector", "x"], "give one of"),
        (["{in}", "--boxes", "{boxes}", "--score", "0.5"], "--score is of everything"),
        (["{in}", "--boxes", "{in}/000.png"], "no COCO file"),
        (["{in}", "--shard", "0"], "shard must be"),
        (["{in}", "--every", "0"], "every must be"),
        (["{in}", "--every", "5"], "every is of a video's frames, and there is no video"),
        (["{in}", "--processes", "0"], "processes must be"),
        (["{in}", "--tracks", "-1"], "tracks must be"),
        (["{in}", "--devices", "gpu"], "--devices takes"),
        (["{boxes}"], "not of a known kind"),
        (["{in}", "--merge", "x.json"], "takes no inputs"),
        (["--merge", "x.json", "--text", "dog"], "--text does nothing beside --merge"),
        (["--merge", "x.json", "--format", "yolo"], "--format does nothing beside --merge"),
        (["--merge", "x.json", "--like-box", "1,2,3,4"], "--like-box does nothing beside --merge"),
        (["{in}", "--like-box", "1,2,3,4"], "--like-box needs a --like"),
        (["{in}", "--boxes", "{boxes}", "--like-mask", "x.png"], "--like-mask needs a --like"),
        (["{in}", "--most", "3"], "--most needs a --like"),
        (["{in}", "--threshold", "0.5"], "--threshold needs a --like"),
        (["{in}", "--text-threshold", "0.5"], "--text-threshold needs a --detector"),
        (["{in}", "--text", ""], "--detector"),
        (["{in}", "--zoom", "off"], "--zoom needs"),
        (["{in}", "--devices", "0"], "there is one; ask for more processes"),
        (["{in}", "--devices", ","], "--devices takes"),
        (["{in}", "--score", "5"], "score must lie in [0, 1], but is 5.0"),
        (["{in}", "--score", "nan"], "score must lie in [0, 1]"),
        (["{in}", "--stability", "-1"], "stability must lie in [0, 1]"),
    ],
)
def test_bad_options_are_told_in_one_line(
    arguments: list[str], told: str, job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [a.format(**{"in": job.inputs, "boxes": job.boxes}) for a in arguments]
    assert main(["label", *given, "--out", str(tmp_path / "out"), "--engine", "fake"]) == 2
    said = capsys.readouterr()
    assert told in said.err and said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "out" / "shards").exists()


def test_workers_elsewhere_are_told_whole_paths(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a cluster run in other folders than the command."""
    told: list[worker.Setup] = []

    def elsewhere(setup: worker.Setup, *_: object) -> Any:
        told.append(setup)
        raise DataError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job_module, "import_ray", lambda: None)
    monkeypatch.setattr(job_module, "label_on_ray", elsewhere)
    shutil.copytree(PACKAGED, "model")
    write_card(Path("detector"), b"graph")
    given = [(BoxFile("boxes.json"), "base"), (Words("dog", "detector"), "model"), (BoxFile("boxes.json"), None)]
    for i, (wanted, model) in enumerate(given):
        with pytest.raises(DataError, match="enough"):
            label(["in"], f"out{i}", wanted, engine="fake", ray="auto", model=model)
    assert [s.model for s in told] == ["base", str(tmp_path / "model"), None]
    assert [getattr(s.wanted, "path", None) for s in told] == [str(job.boxes), None, str(job.boxes)]
    assert getattr(told[1].wanted, "detector", None) == str(tmp_path / "detector")
    assert all(s.root.is_absolute() and s.out.is_absolute() for s in told)


def test_api_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a list"):
        label("photos", tmp_path / "out")
    with pytest.raises(DataError, match="must be a list"):
        label(None, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="an input must be a path"):
        label([7], tmp_path / "out")  # type: ignore[list-item]
    with pytest.raises(InputError, match="wanted must be an Everything"):
        label([tmp_path], tmp_path / "out", "dog")  # type: ignore[arg-type]
    write_pictures(tmp_path / "in", 1)
    with pytest.raises(InputError, match="there is none among the inputs"):
        label([tmp_path / "in"], tmp_path / "out", tracks=3)
    for threshold in (2, float("nan"), "0.5"):
        with pytest.raises(InputError, match=r"threshold must lie in \[0, 1\]"):
            Like("x.npz", threshold=threshold)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"threshold must lie in \[0, 1\]"):
            Words("dog", "detector", threshold)  # type: ignore[arg-type]
    for wanted in (Like, BoxFile, partial(Words, None)):
        with pytest.raises(InputError, match="zoom must be one of"):
            wanted("x", zoom="sometimes")
    with pytest.raises(InputError, match="points_per_side must be a whole number"):
        Everything(points_per_side=0)
    with pytest.raises(InputError, match="crop_layers"):
        Everything(crop_layers=-1)
    numbers = Everything(np.int64(4), np.float32(0.5))  # type: ignore[arg-type]
    assert json.dumps(numbers.facts()) == json.dumps(Everything(4, 0.5).facts())
    with pytest.raises(InputError, match="format must be one of"):
        label([tmp_path], tmp_path / "out", format="voc")
    with pytest.raises(PromptError):
        tinyseg.label.Words(" . ", "detector")
