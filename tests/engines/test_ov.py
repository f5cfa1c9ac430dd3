from __future__ import annotations

import subprocess
import sys

import pytest

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


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_after_segmenters_are_gone_is_handled() -> None:
    """A user presses Ctrl-C; the signal stack that OpenVINO installed must still be there."""
    faulthandler = [sys.executable, "-X", "faulthandler", "-c", CTRL_C]
    done = subprocess.run(faulthandler, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "handled 1" in done.stdout, (done.returncode, done.stderr[-2000:])
