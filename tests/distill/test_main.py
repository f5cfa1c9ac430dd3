"""What the commands of python -m tinyseg.distill have in common."""

from __future__ import annotations

import errno

import pytest

pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[train]')")

from tinyseg.distill import __main__ as commands
from tinyseg.errors import DataError


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left", "clips/1.npz"),
            1,
            "clips/1.npz cannot be written or read: No space left",
        ),
        (MemoryError(), 1, "not enough memory"),
        (DataError("no data"), 2, "no data"),
    ],
)
def test_what_ends_a_command_is_told_in_a_line(
    raised: BaseException, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends(args: object) -> None:
        raise raised

    monkeypatch.setattr(commands, "run_label", ends)
    assert commands.main(["label", "in", "--teacher", "tinyseg:base", "--out", "out"]) == code
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
