"""Files are replaced whole; what is no regular file is written to."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tinyseg.errors import DataError
from tinyseg.files import commit, is_replaceable, write_bytes

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX files")


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.json"
    write_bytes(path, b"old")
    path.chmod(0o600)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


@posix
def test_links_and_pipes_are_written_to(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_bytes(b"old and longer")
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    os.mkfifo(pipe)
    told: list[bytes] = []
    reader = threading.Thread(target=lambda: told.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"through")
    reader.join(10)
    assert told == [b"through"] and pipe.is_fifo()
    assert not is_replaceable(Path(os.devnull)) and not is_replaceable(pipe) and not is_replaceable(link)
    assert not is_replaceable(tmp_path) and is_replaceable(tmp_path / "nothing")


@posix
def test_a_device_node_stays_one(tmp_path: Path) -> None:
    """A node of our own where we may make one; the system's is only looked at."""
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o600 | 0o020000, os.makedev(1, 3))
        node.open("wb").close()
    except OSError as exc:
        pytest.skip(f"no device node can be made or opened here ({exc})")
    write_bytes(node, b"gone")
    assert node.is_char_device()
    with pytest.raises(OSError, match="another kind of thing"):
        commit(tmp_path / "any", node)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "file/inside", "folder"])
def test_what_cannot_be_written_is_one_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_bytes(tmp_path / name, b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
