"""Where the C library of this installation lies (docs/c.md), and the engines' libraries that it opens."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import tinyseg
from tinyseg.errors import EngineNotInstalled, NotInstalled

NAME = "libtinyseg.so.1"  # by its ABI
# The library that the C library opens for an engine: package, folder and name in it.
ENGINE_LIBRARIES = {
    "onnxruntime": ("onnxruntime", "capi", "libonnxruntime.so*"),
    "openvino": ("openvino", "libs", "libopenvino_c.so*"),
}


def c_library_prefix() -> Path:
    """The folder with ``include``, ``lib`` and ``lib/cmake`` of the C library. Raises NotInstalled."""
    # In an editable installation the package's Python files and what was compiled lie in two folders.
    for folder in tinyseg.__path__:
        if (Path(folder) / "lib" / NAME).is_file():
            return Path(folder)
    raise NotInstalled(
        f"this installation of tinyseg has no C library ({NAME}); on Linux install a wheel, or the checkout with: pip install . "
        "(elsewhere there is none)"
    )


def engine_library(engine: str) -> Path:
    """The shared library of an installed engine. Raises EngineNotInstalled."""
    package, folder, pattern = ENGINE_LIBRARIES[engine]
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        found = sorted((Path(place) / folder).glob(pattern))
        if found:
            return found[-1]
    raise EngineNotInstalled(f"no {pattern} of {engine} is installed; run: pip install {package}")
