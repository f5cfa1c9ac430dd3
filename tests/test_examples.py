"""The examples run as they stand, and speak the formats that their programs expect."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import tinyseg
from tests.tinyseg.commands.test_export import clients_python
from tests.tinyseg.label.conftest import Job


def example(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Response:
    """nuclio's response, which its worker makes of what a handler returns."""

    def __init__(self, body: str, headers: dict[str, str], content_type: str, status_code: int) -> None:
        self.body, self.headers, self.content_type, self.status_code = body, headers, content_type, status_code


@pytest.fixture
def context(fake: tinyseg.Segmenter) -> Any:
    told: list[str] = []
    logger = SimpleNamespace(info=told.append, error=told.append)
    return SimpleNamespace(user_data=SimpleNamespace(model=fake), logger=logger, Response=Response)


def test_cvat_gets_a_mask_of_the_picture(root: Path, context: Any, fake: tinyseg.Segmenter, scene: Any) -> None:
    main = example(root / "examples" / "cvat" / "main.py", "cvat_main")
    frame, _ = scene
    image = base64.b64encode(cv2.imencode(".png", frame)[1].tobytes()).decode()
    for body, prompt in [
        ({"pos_points": [[160, 110]], "neg_points": []}, {"points": [[160, 110]], "labels": [1]}),
        (
            {"pos_points": [[160, 110]], "neg_points": [[20, 20]], "obj_bbox": [[100, 60], [240, 160]]},
            {"points": [[160, 110], [20, 20]], "labels": [1, 0], "box": [100, 60, 240, 160]},
        ),
        ({"pos_points": [], "neg_points": [], "obj_bbox": [[100, 60], [240, 160]]}, {"box": [100, 60, 240, 160]}),
    ]:
        answer = main.handler(context, SimpleNamespace(body={"image": image, **body}))
        mask = np.array(json.loads(answer.body)["mask"])
        assert answer.status_code == 200 and mask.shape == (240, 320) and set(np.unique(mask)) <= {0, 1}
        np.testing.assert_array_equal(mask > 0, fake.embed(frame).predict(**prompt, multimask=False).masks[0])  # type: ignore[arg-type]
    for bad in (
        {"image": "AAAA", "pos_points": [[1, 1]]},
        {"image": image},
        {"image": image, "pos_points": [[999, 1]]},
        {},
    ):
        answer = main.handler(context, SimpleNamespace(body=bad))
        assert answer.status_code == 400 and json.loads(answer.body)["error"]


def test_the_cvat_function_describes_itself(root: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    function = yaml.safe_load((root / "examples" / "cvat" / "function.yaml").read_text())
    annotations = function["metadata"]["annotations"]
    assert annotations["type"] == "interactor" and annotations["version"] == 2
    assert {"min_pos_points", "min_neg_points", "startswith_box_optional"} <= set(annotations)
    assert function["spec"]["handler"] == "main:handler" and function["metadata"]["namespace"] == "cvat"


def test_label_studio_contexts_become_prompts(root: Path) -> None:
    answers = example(root / "examples" / "label_studio" / "answers.py", "label_studio_answers")
    size = {"original_width": 200, "original_height": 100}
    click = {
        **size,
        "type": "keypointlabels",
        "is_positive": True,
        "value": {"x": 25.0, "y": 50.0, "width": 0.3, "keypointlabels": ["cup"]},
    }
    away = {**click, "is_positive": 0, "value": {**click["value"], "x": 90.0}}  # type: ignore[dict-item]
    box = {
        **size,
        "type": "rectanglelabels",
        "value": {"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "rectanglelabels": ["cup"]},
    }
    prompt, label = answers.prompt_of({"result": [click, away, box]})
    assert label == "cup" and prompt["points"] == [[50.0, 50.0], [180.0, 50.0]] and prompt["labels"] == [1, 0]
    assert prompt["box"] == [20.0, 20.0, 80.0, 60.0]
    assert answers.prompt_of({"result": [box]})[0]["points"] is None


def test_label_studio_takes_our_masks(root: Path, tmp_path: Path, scene: Any) -> None:
    python = clients_python(root, "label-studio")
    np.save(tmp_path / "mask.npy", scene[1])
    command = [
        python,
        root / "tests" / "clients" / "check_label_studio.py",
        root / "examples" / "label_studio",
        tmp_path / "mask.npy",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "ok" in done.stdout, done.stderr[-2000:]


def test_annotation_tools_read_our_labels_and_give_them_back(root: Path, tmp_path: Path) -> None:
    """CVAT by datumaro, Label Studio by its SDK; what comes back is what was there."""
    python = clients_python(root, "label-studio")
    job, out = Job(tmp_path, 4), tmp_path / "out"
    job.label(out)
    before = json.loads((out / "annotations.json").read_text())["annotations"]
    folder = root / "examples" / "label_studio"
    command = [
        python,
        root / "tests" / "clients" / "check_labels.py",
        folder,
        out,
        job.inputs,
        tmp_path / "corrected.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0 and "ok, 4 masks" in done.stdout, done.stderr[-2000:]
    assert tinyseg.label.merge(tmp_path / "corrected.json", out).after == 4
    after = json.loads((out / "annotations.json").read_text())["annotations"]
    same = ("segmentation", "bbox", "area", "category_id")
    assert [[a[k] for k in same] for a in after] == [[a[k] for k in same] for a in before]


def test_fiftyone_reads_our_labels(root: Path, tmp_path: Path) -> None:
    python = clients_python(root, "fiftyone")
    job, out = Job(tmp_path, 4), tmp_path / "out"
    job.label(out)
    # It makes folders at home and would report its use.
    around = {**os.environ, "PYTHONPATH": str(root), "HOME": str(tmp_path), "FIFTYONE_DO_NOT_TRACK": "true"}
    command = [python, root / "tests" / "clients" / "check_fiftyone.py", out, job.inputs]
    done = subprocess.run(command, capture_output=True, text=True, env=around)
    assert done.returncode == 0 and "ok, 4 masks" in done.stdout, done.stderr[-2000:]


def test_the_notebook_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed (the test extra)")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (the test extra)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (the test extra)")
    notebook = nbformat.read(root / "examples" / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # results are the reader's own
    monkeypatch.setenv("PYTHONPATH", str(root))
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": str(root / "examples")}}
    )
    client.execute()
    kinds = {key for cell in notebook.cells for out in cell.get("outputs", []) for key in out.get("data", {})}
    assert "image/png" in kinds


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["virtual_background.py", "nowhere.mp4"], "is no source"),
        (["virtual_background.py", "clip.mp4", "--background", "plaid"], "is no background"),
        (["virtual_background.py", "clip.mp4", "--frames", "1"], "no window"),
        (["close_the_loop.py", "nowhere", "--measure", "nowhere.tar", "--out", "loop"], "matches no file"),
        (["label_studio/tasks.py", "nowhere", "--write", "tasks.json"], "there is no nowhere"),
    ],
)
def test_what_goes_wrong_is_told_in_a_line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    if "close_the_loop.py" in arguments:
        pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.delenv("DISPLAY", raising=False)
    (tmp_path / "clip.mp4").write_bytes((root / "examples" / "clip.mp4").read_bytes())
    program = [sys.executable, str(root / "examples" / arguments[0]), *arguments[1:]]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and says in done.stderr and "Traceback" not in done.stderr
