from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

import tinyseg
from tinyseg.cli import main
from tinyseg.engines.cache import EngineCache, cache_root, entry_key, open_cache
from tinyseg.errors import CacheError, EngineError

KEY = entry_key({"engine": "fake", "version": "1", "precision": "fp32"}, "ab" * 32, {"height": 64, "width": 96})


def never() -> bytes:
    raise AssertionError("this must come from the cache")


def test_is_built_once_and_then_restored(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 10**9)
    assert cache.get_or_build(KEY, lambda: b"engine", bytes.decode) == "engine"
    assert EngineCache(tmp_path, 10**9).get_or_build(KEY, never, bytes.decode) == "engine"
    other = {**KEY, "version": "2"}
    assert cache.get_or_build(other, lambda: b"newer", bytes.decode) == "newer"
    assert (cache.builds, cache.hits) == (2, 0)


@pytest.mark.parametrize("damage", ["flip", "truncate", "no engine", "no facts", "other key"])
def test_damaged_entries_are_rebuilt_and_reported(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = EngineCache(tmp_path, 10**9)
    cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
    (entry,) = cache.entries(check=True)
    assert entry.problem is None
    if damage == "flip":
        (entry.path / "engine.bin").write_bytes(b"fngine")
    elif damage == "truncate":
        (entry.path / "engine.bin").write_bytes(b"eng")
    elif damage == "no engine":
        (entry.path / "engine.bin").unlink()
    elif damage == "no facts":
        (entry.path / "entry.json").write_text("{")
    else:
        facts = json.loads((entry.path / "entry.json").read_text())
        (entry.path / "entry.json").write_text(json.dumps({**facts, "key": {}}))
    with caplog.at_level(logging.WARNING, "tinyseg.cache"):
        assert cache.get_or_build(KEY, lambda: b"again", bytes.decode) == "again"
    assert "rebuilt" in caplog.text
    assert cache.get_or_build(KEY, never, bytes.decode) == "again"


def test_an_engine_that_its_library_refuses_is_rebuilt(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 10**9)
    cache.get_or_build(KEY, lambda: b"old", bytes.decode)

    def picky(blob: bytes) -> str:
        if blob == b"old":
            raise EngineError("made by another version")
        return blob.decode()

    assert cache.get_or_build(KEY, lambda: b"new", picky) == "new"


def test_a_failing_or_killed_build_leaves_nothing(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 10**9)

    def fails() -> bytes:
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        cache.get_or_build(KEY, fails, bytes.decode)
    assert cache.entries(check=True) == []
    child = multiprocessing.get_context("fork").Process(target=_die_in_build, args=(tmp_path,))
    child.start()
    child.join(30)
    assert child.exitcode == 9
    assert cache.entries(check=True) == []
    assert cache.get_or_build(KEY, lambda: b"engine", bytes.decode) == "engine"


def _die_in_build(root: Path) -> None:
    EngineCache(root, 10**9).get_or_build(KEY, lambda: os._exit(9), bytes.decode)


def _ask(root: Path, log: Path) -> None:
    def build() -> bytes:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        return b"x" * 100_000

    cache = EngineCache(root, 10**9)
    if cache.get_or_build(KEY, build, len) != 100_000:
        os._exit(1)
    os._exit(0)


def test_fifty_processes_at_once_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_ask, args=(tmp_path / "cache", log)) for _ in range(50)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [c.exitcode for c in children] == [0] * 50
    assert log.read_text() == "built\n"


def test_waiting_is_told_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tinyseg.engines.cache.NOTICE_SECONDS", 0.05)
    monkeypatch.setattr("tinyseg.engines.cache.WAIT_SECONDS", 0.1)
    first = EngineCache(tmp_path, 10**9)

    def asks_again() -> bytes:  # from within the build, so the lock is held by somebody else
        with pytest.raises(CacheError, match="building the same engine"):
            EngineCache(tmp_path, 10**9).get_or_build(KEY, lambda: b"", bytes.decode)
        return b"engine"

    with caplog.at_level(logging.WARNING, "tinyseg.cache"):
        assert first.get_or_build(KEY, asks_again, bytes.decode) == "engine"
    assert "waiting" in caplog.text


def test_is_bounded_and_drops_the_least_recently_used(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 2_500_000)
    keys = [{**KEY, "version": str(i)} for i in range(3)]
    for i, key in enumerate(keys):
        cache.get_or_build(key, lambda: b"x" * 1_000_000, len)
        (newest,) = [e for e in cache.entries(check=False) if e.key["version"] == str(i)]
        os.utime(newest.path / "entry.json", (1000.0 + i, 1000.0 + i))
    assert {e.key["version"] for e in cache.entries(check=False)} == {"1", "2"}


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "named"))
    assert cache_root() == tmp_path / "named"
    cache, told = open_cache()
    assert cache is not None and told == "on" and (tmp_path / "named").is_dir()
    monkeypatch.setenv("TINYSEG_CACHE_MB", "0")
    assert open_cache() == (None, "off (TINYSEG_CACHE_MB=0)")
    monkeypatch.setenv("TINYSEG_CACHE_MB", "many")
    with pytest.raises(CacheError, match="whole number"):
        open_cache()


def test_a_named_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "file" / "inside"))
    with pytest.raises(CacheError, match=r"TINYSEG_CACHE=.* cannot be written"):
        tinyseg.load(engine="onnxruntime", precision="int8")


def test_an_unwritable_default_place_is_only_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("TINYSEG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache, told = open_cache()
    assert cache is None and "cannot be written" in told and "TINYSEG_CACHE" in told
    seg = tinyseg.load(engine="onnxruntime", precision="int8")
    assert seg.info.cache == told


def test_a_full_disk_costs_only_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = EngineCache(tmp_path, 10**9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_store", full)
    with caplog.at_level(logging.WARNING, "tinyseg.cache"):
        assert cache.get_or_build(KEY, lambda: b"engine", bytes.decode) == "engine"
    assert "could not be kept" in caplog.text and "No space left" in caplog.text


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path))
    EngineCache(tmp_path, 10**9).get_or_build(KEY, lambda: b"engine", bytes.decode)
    assert main(["cache", "list"]) == 0
    out = capsys.readouterr().out
    assert "fake 1 fp32" in out and "height=64 width=96" in out and "1 engines" in out
    assert main(["cache", "verify"]) == 0
    capsys.readouterr()
    (entry,) = open_cache()[0].entries(check=False)  # type: ignore[union-attr]
    (entry.path / "engine.bin").write_bytes(b"other")
    assert main(["cache", "verify"]) == 1
    assert "checksum" in capsys.readouterr().out
    assert main(["cache", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    EngineCache(tmp_path, 10**9).get_or_build(KEY, lambda: b"engine", bytes.decode)
    assert main(["cache", "clear"]) == 0
    assert "removed 1" in capsys.readouterr().out


def test_the_second_start_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path))
    frame = np.zeros((96, 128, 3), np.uint8)
    frame[20:70, 30:90] = 200
    first = tinyseg.load(engine="onnxruntime", precision="int8")
    masks = first.embed(frame).predict(box=(30, 20, 90, 70), multimask=False, zoom="off")
    monkeypatch.setattr("tinyseg.engines.ort.OrtEngine.build", lambda *_: never())
    second = tinyseg.load(engine="onnxruntime", precision="int8")
    again = second.embed(frame).predict(box=(30, 20, 90, 70), multimask=False, zoom="off")
    assert np.array_equal(masks.logits, again.logits)
