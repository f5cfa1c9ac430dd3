from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinyseg import diagnosis
from tinyseg.cli import main
from tinyseg.diagnosis import EngineState


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "cache"))


def test_says_what_works_and_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tinyseg.engines.importlib.util.find_spec", lambda name: object() if name == "onnxruntime" else None
    )
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "engine      onnxruntime" in told and "works" in told
    assert "not installed pip install 'tinyseg[openvino]'" in told
    assert "chosen      model tinyseg" in told and "images      JPEG, PNG" in told


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {e["name"]: e["works"] for e in facts["engines"]}["onnxruntime"] is True
    assert facts["cores"] >= 1 and facts["memory_gb"] > 0 and isinstance(facts["traps"], list)


def test_an_engine_that_fails_is_a_trap_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise diagnosis.TinysegError("its library does not load")

    monkeypatch.setattr(diagnosis, "load", broken)
    assert main(["doctor"]) == 3
    told = capsys.readouterr().out
    assert "FAILS" in told and "onnxruntime is installed but does not work: its library does not load" in told
    assert "chosen      none (its library does not load)" in told


def traps(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], **facts: Any) -> str:
    monkeypatch.setattr(diagnosis, "installed", installed.get)
    monkeypatch.setattr(diagnosis, "_text", lambda path: facts.get("files", {}).get(path))
    found = diagnosis.find_traps(facts.get("gpus", []), facts.get("governor"), facts.get("engines", []))
    return "\n".join(f"{t.problem} -> {t.remedy}" for t in found)


def test_traps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert traps(monkeypatch, {"onnxruntime": "1", "opencv-python-headless": "4"}) == ""
    two = traps(monkeypatch, {"opencv-python": "4", "opencv-python-headless": "4"})
    assert "overwrite each other's cv2" in two and "pip uninstall -y opencv-python opencv-python-headless" in two
    gpu = traps(monkeypatch, {"onnxruntime": "1"}, gpus=["NVIDIA RTX 4090, 550, 8.9"])
    assert "only the CPU build of ONNX Runtime" in gpu and "pip install onnxruntime-gpu" in gpu
    assert traps(monkeypatch, {"onnxruntime-gpu": "1"}, gpus=["NVIDIA RTX 4090, 550, 8.9"]) == ""
    assert "powersave" in traps(monkeypatch, {}, governor="powersave")
    jetson = {"/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic"}
    assert "JetPack 6 comes with TensorRT 10, but version 11.4.0" in traps(
        monkeypatch, {"tensorrt": "11.4.0"}, files=jetson
    )
    assert traps(monkeypatch, {"tensorrt": "10.3.0"}, files=jetson) == ""
    monkeypatch.setattr("tinyseg.engines.cpu.available_cores", lambda: 8)
    quota = traps(monkeypatch, {}, files={"/sys/fs/cgroup/cpu.max": "150000 100000"})
    assert "1.5 cores, but 8 are visible" in quota and "--threads 1" in quota
    failing = traps(monkeypatch, {}, engines=[EngineState("openvino", "2026", (), False, "boom")])
    assert "openvino is installed but does not work: boom" in failing


def test_jetson_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/etc/nv_tegra_release": "# R38 (release), REVISION: 2.2, GCID: 1",
        "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
    }
    monkeypatch.setattr(diagnosis, "_text", files.get)
    monkeypatch.setattr(diagnosis.shutil, "which", lambda _: None)
    assert diagnosis.jetpack() == (7, "7 (Jetson Linux 38.2.2)")
    assert diagnosis.nvidia_gpus() == ["NVIDIA integrated (NVIDIA Jetson Orin Nano Developer Kit)"]
