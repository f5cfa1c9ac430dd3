"""Arrays and tensors: torch is imported only here, and only for callers who bring it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.arguments import shown
from tinyseg.errors import InputError, NotInstalled


class HostTensor(np.ndarray[Any, np.dtype[np.float32]]):
    """A float32 array that also answers to what scripts call on a tensor before they use it: detach, cpu, numpy."""

    def detach(self) -> HostTensor:
        """Itself: nothing here is differentiated."""
        return self

    def cpu(self) -> HostTensor:
        """Itself: it lies in the host's memory."""
        return self

    def numpy(self) -> NDArray[np.float32]:
        """The same memory as a plain array."""
        return self.view(np.ndarray)


def host_tensor(array: NDArray[np.float32]) -> HostTensor:
    """The same memory as a :class:`HostTensor`."""
    return np.asarray(array, np.float32).view(HostTensor)


def import_torch() -> Any:
    """torch, for calls that take and give tensors. Raises NotInstalled."""
    try:
        return importlib.import_module("torch")
    except ImportError as exc:
        raise NotInstalled(
            "this call takes and gives torch tensors, and torch is not installed; run: pip install torch, or use "
            "predict(...) or Embedding.predict_batch(...), which need numpy alone"
        ) from exc


def as_array(value: Any, name: str) -> NDArray[Any]:
    """A tensor on any device, an array or nested lists -> an array. Raises InputError."""
    try:
        array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except Exception as exc:  # ragged lists, and whatever an object's __array__ raises
        raise InputError(f"{name} must be an array of numbers, but {shown(value)} is not ({exc!s:.200})") from exc
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} must be numbers, but is a {type(value).__name__} of dtype {array.dtype}")
    return array
