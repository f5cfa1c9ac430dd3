from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinyseg.errors import DataError
from tinyseg.system.folders import new_folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with new_folder(tmp_path / "a" / "out") as folder:
            (folder / text).write_text(text)
        assert names(tmp_path / "a" / "out") == [text]
    assert names(tmp_path / "a") == ["out"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_an_error_changes_nothing(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("")
    with (
        pytest.raises(DataError if isinstance(error, OSError) else type(error)),
        new_folder(tmp_path / "out") as folder,
    ):
        (folder / "half").write_text("")
        raise error
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["kept"]


def test_a_failing_rename_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("")
    real = os.rename

    def rename(a: Path, b: Path) -> None:
        if Path(b) == tmp_path / "out" and not str(a).endswith(".before"):
            raise OSError(30, "Read-only file system")
        real(a, b)

    monkeypatch.setattr("tinyseg.system.folders.os.rename", rename)
    with pytest.raises(DataError, match="Read-only"), new_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["kept"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), new_folder(tmp_path / "file" / "out"):
        pass
