from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tinyseg
from tinyseg.engines import create_engine, offered_precisions, why_not
from tinyseg.errors import PrecisionUnavailable

pytest.importorskip("openvino", reason="openvino is not installed (pip install 'tinyseg[openvino]')")

# Two segmenters come and go, the older one first; then a signal that the program handles.
CTRL_C = """
import gc, os, signal
import tinyseg
handled = []
signal.signal(signal.SIGINT, lambda *_: handled.append(1))
first, second = (tinyseg.load(engine="openvino", precision="fp32") for _ in range(2))
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGINT)
print("handled", len(handled))
"""

FORKED = """
import os, signal
import numpy as np
import tinyseg
def loaded():
    return tinyseg.load(engine="openvino", precision="fp32", threads=2, streams=2)
seg, workspace = loaded(), tinyseg.Workspace()
frame, box = np.zeros((64, 64, 3), np.uint8), tinyseg.Prompt(box=(8, 8, 40, 40))
embedding = seg.embed(frame)
seg.run(frame, [box], workspace)
if os.fork() == 0:
    signal.alarm(60)  # ends one that waits
    asked = (lambda: seg.embed(frame), lambda: embedding.predict(box=(8, 8, 40, 40)), lambda: seg.run(frame, [box], workspace))
    for ask in asked:
        try:
            ask()
        except tinyseg.EngineError as exc:
            print(exc, flush=True)
    print("again", loaded().embed(frame).predict(box=(8, 8, 40, 40), multimask=False).masks.shape, flush=True)
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


# Two threads look at a tensor for the first time in their process. The one that is second waits for the interpreter, and has
# asked for it, when the first one's look gives it away: between the two partials no bytecode is run in which it would be.
FIRST_LOOKS = """
import threading
from functools import partial
import openvino
from openvino import opset8
from tinyseg.engines import create_engine
core = create_engine("openvino", "fp32", 1).engine._core
x = opset8.parameter([4], openvino.Type.f32, name="x")
compiled = core.compile_model(openvino.Model([opset8.relu(x)], [x]), "CPU")
first, second = (compiled.create_infer_request().get_output_tensor(0) for _ in range(2))
gate, waits = threading.Lock(), threading.Event()
gate.acquire()
def look():
    waits.set()
    gate.acquire()
    second.data
thread = threading.Thread(target=look)
thread.start()
waits.wait()
gate.release()
list(map(partial.__call__, [partial(sum, range(3000000)), partial(getattr, first, "data")]))
thread.join()
print("looked")
"""


def test_two_threads_may_look_at_their_first_tensors_at_the_same_time() -> None:
    program = [sys.executable, "-c", FIRST_LOOKS]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert "looked" in done.stdout, done.stderr[-2000:]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_after_segmenters_are_gone_is_handled() -> None:
    """A user presses Ctrl-C; the signal stack that OpenVINO installed must still be there."""
    faulthandler = [sys.executable, "-X", "faulthandler", "-c", CTRL_C]
    done = subprocess.run(faulthandler, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "handled 1" in done.stdout, (done.returncode, done.stderr[-2000:])


def test_int8_is_not_offered_where_its_sums_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.engines.cpu.int8_saturates", lambda: True)
    assert "int8" not in offered_precisions("openvino")
    with pytest.raises(PrecisionUnavailable, match=r"no 8-bit dot product.*precision='fp32', or engine='onnxruntime'"):
        tinyseg.load(engine="openvino", precision="int8")
    assert tinyseg.load(engine="openvino").info.precision != "int8"
    monkeypatch.setattr("tinyseg.engines.cpu.int8_saturates", lambda: False)
    assert "int8" in offered_precisions("openvino") and why_not("openvino", "int8") == ""
    assert why_not("onnxruntime", "int8") == ""


def test_auto_takes_an_engine_that_offers_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.engines.cpu.int8_saturates", lambda: True)
    chosen = create_engine("auto", "int8", 1)
    assert chosen.engine.name == "onnxruntime" and "openvino passed over, without int8 here" in chosen.reason
    assert create_engine("auto", "fp32", 1).engine.name == "openvino"


def test_a_part_of_the_cores_is_not_always_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of one thread each that OpenVINO binds to cores share the first core, and take twice as long."""
    monkeypatch.setattr("tinyseg.engines.cpu.available_cores", lambda: 4)
    bound = {n: create_engine("openvino", "fp32", n).engine.identity()["ENABLE_CPU_PINNING"] for n in (1, 3, 4)}
    assert bound == {1: "False", 3: "False", 4: "True"}  # and a process that has one core builds what others build


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_streams_that_a_fork_left_behind_are_told() -> None:
    """Without that a run in the new process waits for ever."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=300)
    told = "loaded before the process was forked"
    assert done.returncode == 0 and done.stdout.count(told) == 3 and "again (1, 64, 64)" in done.stdout, done
