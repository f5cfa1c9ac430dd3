"""CUDA graphs on a stream of PyCUDA, which does not offer them: five calls of the driver's own library.

One graph is captured for each shape, from a run whose addresses never change, and launched as a whole afterwards: a
small network is otherwise limited by the time its launches take.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from tinyseg.errors import EngineError

THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating


def load_driver() -> Any:
    """The CUDA driver's library. Raises EngineError."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as exc:
        raise EngineError(f"the CUDA driver's library {name} does not load ({exc}); install the NVIDIA driver") from exc


class CapturedGraph:
    """Work recorded from a stream, launched again and again."""

    def __init__(self, driver: Any, stream: int) -> None:
        self._driver = driver
        self._stream = ctypes.c_void_p(stream)
        self._graph = ctypes.c_void_p()
        self._executable = ctypes.c_void_p()

    def begin(self) -> None:
        """What the stream is given from here on is recorded, not run."""
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(THREAD_LOCAL))

    def end(self) -> None:
        """Stop recording and make the graph ready to launch."""
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(self._graph))
        self._call(
            "cuGraphInstantiateWithFlags", ctypes.byref(self._executable), self._graph, ctypes.c_ulonglong(0)
        )  # fmt: skip

    def launch(self) -> None:
        self._call("cuGraphLaunch", self._executable, self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code != 0:
            raise EngineError(f"the CUDA driver refused {name} (error {code})")
