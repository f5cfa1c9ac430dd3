"""``tinyseg cmake-dir``: where CMake and pkg-config find the C library."""

from __future__ import annotations

import argparse
from typing import Any

from tinyseg.system.c_library import c_library_prefix


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "cmake-dir", help="where CMake finds the C library",
        description="Print the folder that goes into CMAKE_PREFIX_PATH, for find_package(tinyseg) of C and C++ programs: "
        "cmake -S examples/c -B build -DCMAKE_PREFIX_PATH=\"$(tinyseg cmake-dir)\"",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(_args: argparse.Namespace) -> int:
    print(c_library_prefix())
    return 0
