"""The compiled core (``tinyseg._native``), loaded when it is first needed: what needs none of it runs without."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from tinyseg.errors import NativeModuleError

if TYPE_CHECKING:
    from types import ModuleType


@functools.cache
def core() -> ModuleType:
    """The compiled core. Raises NativeModuleError."""
    try:
        return importlib.import_module("tinyseg._native")
    except ImportError as exc:
        raise NativeModuleError(
            f"the compiled pixel core (tinyseg._native) does not load: {exc}. Install tinyseg with 'pip install .' "
            "in its checkout (a C++17 compiler is needed) or from a wheel for this platform."
        ) from exc
