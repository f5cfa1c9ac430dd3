from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinyseg.errors import DataError
from tinyseg.system import folders
from tinyseg.system.folders import MARKER, ResultFolder, new_folder, written_files


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fill(out: Path, name: str) -> None:
    with new_folder(out) as folder:
        (folder / name).write_text(name)


@pytest.mark.parametrize("exchange", [True, False])
def test_takes_the_place_of_what_was_there(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    for text in ("first", "second"):
        fill(tmp_path / "a" / "out", text)
        assert names(tmp_path / "a" / "out") == [MARKER, text]
    assert names(tmp_path / "a") == ["out"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_an_error_changes_nothing(error: BaseException, tmp_path: Path) -> None:
    fill(tmp_path / "out", "kept")
    with (
        pytest.raises(DataError if isinstance(error, OSError) else type(error)),
        new_folder(tmp_path / "out") as folder,
    ):
        (folder / "half").write_text("")
        raise error
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == [MARKER, "kept"]


def test_a_failing_rename_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out", "kept")
    real = os.rename

    def rename(a: Path, b: Path) -> None:
        if Path(b) == tmp_path / "out" and not str(a).endswith(".before"):
            raise OSError(30, "Read-only file system")
        real(a, b)

    monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    monkeypatch.setattr("tinyseg.system.folders.os.rename", rename)
    with pytest.raises(DataError, match="Read-only"):
        fill(tmp_path / "out", "new")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == [MARKER, "kept"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        fill(tmp_path / "file" / "out", "x")
    with pytest.raises(DataError, match="is a file, and a folder"):
        fill(tmp_path / "file", "x")
    with pytest.raises(DataError, match="null byte"):
        fill(tmp_path / "a\0b", "x")
    assert names(tmp_path) == ["file"]


def test_what_tinyseg_did_not_write_is_kept(tmp_path: Path) -> None:
    theses = tmp_path / "theses"
    (theses / "1999").mkdir(parents=True)
    (theses / "1999" / "mine.tex").write_text("years")
    with pytest.raises(DataError, match=r"holds 1999.mine.tex, which tinyseg did not write there; name another folder"):
        fill(theses, "x")
    # Also beside what it did write, and where only a link was put there.
    fill(tmp_path / "out", "model.json")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.txt"):
        fill(tmp_path / "out", "model.json")
    (tmp_path / "out" / "notes.txt").unlink()
    (tmp_path / "out" / "link").symlink_to(theses)
    with pytest.raises(DataError, match="holds link"):
        fill(tmp_path / "out", "model.json")
    # And what came while the folder was being filled.
    (tmp_path / "out" / "link").unlink()
    with pytest.raises(DataError, match="holds late"), new_folder(tmp_path / "out"):
        (tmp_path / "out" / "late").write_text("")
    assert (theses / "1999" / "mine.tex").read_text() == "years" and names(tmp_path) == ["out", "theses"]


def test_a_link_is_followed_and_an_empty_folder_taken(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    fill(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "real") == [MARKER, "x"]


@pytest.mark.parametrize("out", [".", "", "..", "/"])
def test_the_folder_that_somebody_works_in_is_not_replaced(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="name a folder inside it"):
        fill(Path(out), "file")
    assert names(tmp_path / "here") == [] and names(tmp_path) == ["here"]


def test_results_beside_somebodys_files(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "report.md").write_text("mine")
    out = ResultFolder(folder)
    with pytest.raises(DataError, match=r"report\.md is there and was not written by tinyseg"):
        out.place("report.md")
    out.place("rows.json").write_text("1")
    again = ResultFolder(folder)
    again.place("rows.json").write_text("2")
    again.place("more.json")
    assert written_files(folder) == {MARKER, "rows.json", "more.json"} and (folder / "report.md").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"report.md\n", b"\xff\xfe", b"# Written by somebody\nreport.md\n"])
def test_a_marker_of_somebody_else_means_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_bytes(content)
    (tmp_path / "report.md").write_text("mine")
    assert written_files(tmp_path) == set()
    with pytest.raises(DataError, match="not written by tinyseg"):
        ResultFolder(tmp_path).place("other.md")
    with pytest.raises(DataError, match="did not write"):
        fill(tmp_path, "x")


def test_two_runs_may_write_into_one_new_folder(tmp_path: Path) -> None:
    first, second = ResultFolder(tmp_path / "out"), ResultFolder(tmp_path / "out")
    first.place("a.png").touch()
    second.place("b.png").touch()
    second.place("a.png").touch()  # the same picture in both runs: the later result stays
    assert first.place("b.png") == tmp_path / "out" / "b.png"
    assert written_files(tmp_path / "out") == {MARKER, "a.png", "b.png"}
    (tmp_path / "out" / "own.png").touch()
    with pytest.raises(DataError, match=r"own\.png is there and was not written by tinyseg"):
        second.place("own.png")
