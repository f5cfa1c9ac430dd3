"""What scripts/arm64_results.py tolerates between two machines, and what it does not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "arm64_results.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("arm64_results", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def square(cut: int = 0) -> np.ndarray:
    """A mask of 64 x 64 pixels in one of 100 x 100, less its last columns, as bits."""
    mask = np.zeros((100, 100), np.bool_)
    mask[10:74, 10 : 74 - cut] = True
    return np.packbits(mask, axis=-1)


def answers(
    cuts: dict[str, tuple[int, int, int]], scores: tuple[float, float, float] = (0.9, 0.8, 0.3)
) -> dict[str, Any]:
    """cuts: columns that each reading lacks, by precision."""
    made: dict[str, Any] = {"machine": "x86_64", "pixels plain 512": np.zeros((3, 8, 8), np.float32)}
    for precision, columns in cuts.items():
        made[f"onnxruntime {precision} a box masks"] = np.stack([square(c) for c in columns])
        made[f"onnxruntime {precision} a box scores"] = np.array(scores, np.float32)
    return made


HERE = {"fp32": (0, 0, 0), "int8": (2, 2, 2)}  # int8 is 1/32 from fp32, as machines are then allowed to be on average


@pytest.mark.parametrize(
    ("cuts", "scores", "failed"),
    [
        (HERE, (0.9, 0.8, 0.3), []),
        ({"fp32": (0, 0, 1), "int8": (2, 2, 2)}, (0.9, 0.8, 0.3), ["fp32 a box masks"]),
        ({"fp32": (0, 0, 0), "int8": (2, 5, 2)}, (0.9, 0.8, 0.3), []),  # one is far, on average they are near
        ({"fp32": (0, 0, 0), "int8": (4, 5, 2)}, (0.9, 0.8, 0.3), ["int8 sure"]),
        ({"fp32": (0, 0, 0), "int8": (2, 9, 2)}, (0.9, 0.8, 0.3), ["int8 a box masks", "int8 sure", "int8 all"]),
        ({"fp32": (0, 0, 0), "int8": (2, 2, 12)}, (0.9, 0.8, 0.3), ["int8 all"]),  # nobody is sure of the third
        ({"fp32": (0, 0, 0), "int8": (2, 2, 20)}, (0.9, 0.8, 0.3), ["int8 a box masks", "int8 all"]),
        (HERE, (0.9, 0.8, 0.31), ["fp32 a box scores"]),
        (HERE, (0.9, 0.8, 0.33), ["fp32 a box scores", "int8 a box scores"]),
    ],
)
def test_what_is_tolerated(
    cuts: dict[str, tuple[int, int, int]], scores: tuple[float, float, float], failed: list[str], script: Any,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    np.savez(tmp_path / "here.npz", **answers(HERE))
    np.savez(tmp_path / "there.npz", **answers(cuts, scores))
    count = script.compare(tmp_path / "here.npz", tmp_path / "there.npz")
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERS")]
    assert count == len(told) == len(failed)
    assert all(f"onnxruntime {name} " in line for name, line in zip(failed, told)), told


def test_pixels_and_shapes(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = answers(HERE), answers(HERE)
    there["pixels plain 512"] = here["pixels plain 512"] + np.float32(0.0011)
    np.savez(tmp_path / "here.npz", **here)
    np.savez(tmp_path / "there.npz", **there)
    assert script.compare(tmp_path / "here.npz", tmp_path / "there.npz") == 1
    there["pixels plain 512"] = np.zeros((3, 8, 7), np.float32)
    np.savez(tmp_path / "there.npz", **there)
    assert script.compare(tmp_path / "here.npz", tmp_path / "there.npz") == 1
    assert "shapes (3, 8, 8) and (3, 8, 7)" in capsys.readouterr().out


def test_files_of_something_else_are_told(script: Any, tmp_path: Path) -> None:
    here, there = tmp_path / "here.npz", tmp_path / "there.npz"
    np.savez(here, **answers(HERE))
    with pytest.raises(SystemExit, match=r"there\.npz cannot be read: No such file or directory; make one with"):
        script.compare(here, there)
    np.save(tmp_path / "one.npy", np.zeros(3))
    damaged = bytearray(here.read_bytes())
    damaged[100] ^= 255
    for data in (b"text", b"", here.read_bytes()[:-30], bytes(damaged), (tmp_path / "one.npy").read_bytes()):
        there.write_bytes(data)
        with pytest.raises(SystemExit, match="it was not made by this script, or is damaged"):
            script.compare(here, there)
    np.savez(there, **{name.replace("onnxruntime", "openvino"): value for name, value in answers(HERE).items()})
    with pytest.raises(SystemExit, match="there is nothing to compare"):
        script.compare(here, there)
