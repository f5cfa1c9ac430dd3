from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tinyseg
from tinyseg.cli import main
from tinyseg.engines import cache as cache_module
from tinyseg.engines import cache_place
from tinyseg.engines.cache import EngineCache, entry_key, open_cache
from tinyseg.engines.cache_place import cache_root, own_folder
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


@pytest.mark.parametrize("damage", ["flip", "truncate", "no engine", "no facts", "other key", "forged", "file", "link"])
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
    elif damage == "forged":  # with a right checksum, as somebody without the key could make it
        (entry.path / "engine.bin").write_bytes(b"fngine")
        facts = json.loads((entry.path / "entry.json").read_text())
        facts["sha256"] = hashlib.sha256(b"fngine").hexdigest()
        (entry.path / "entry.json").write_text(json.dumps(facts))
    elif damage in ("file", "link"):
        elsewhere = tmp_path / "elsewhere"
        entry.path.rename(elsewhere)
        if damage == "file":
            entry.path.write_text("somebody's")
        else:
            entry.path.symlink_to(elsewhere)
    else:
        facts = json.loads((entry.path / "entry.json").read_text())
        (entry.path / "entry.json").write_text(json.dumps({**facts, "key": {}}))
    assert [e.problem is None for e in cache.entries(check=True)] == [False]
    with caplog.at_level(logging.WARNING, "tinyseg.cache"):
        assert cache.get_or_build(KEY, lambda: b"again", bytes.decode) == "again"
    assert "rebuilt" in caplog.text
    assert cache.get_or_build(KEY, never, bytes.decode) == "again"
    assert len(list((tmp_path / "aside").iterdir())) == 1  # kept for whoever wants to look at it


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": None}, {"bytes": -1}, {"bytes": 10**30}, {"sha256": []}, {"code": "x"}, {"key": []}, {"key": {"engine": {}}},
        {"key": {**KEY, "dimensions": {"height": "\x1b[2J"}}}, {"key": {**KEY, "engine": "\x1b[2J"}},
    ],
)  # fmt: skip
def test_entries_of_strangers_stop_nothing(
    change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path))
    cache = EngineCache(tmp_path, 10**9)
    cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
    (entry,) = cache.entries(check=False)
    facts = json.loads((entry.path / "entry.json").read_text())
    for i, text in enumerate((json.dumps({**facts, **change}), "[" * 9999, "[]", '{"bytes": Infinity}', "\0" * 70_000)):
        path = entry.path.with_name(f"{i:064x}")
        path.mkdir()
        (path / "entry.json").write_text(text)
    (entry.path.with_name("f" * 64)).write_text("a file in an entry's place")
    (entry.path.with_name("e" * 64)).symlink_to(tmp_path / "nowhere")
    (entry.path.with_name("thesis.txt")).write_text("years")
    assert cache.get_or_build({**KEY, "version": "2"}, lambda: b"other", bytes.decode) == "other"
    assert main(["cache", "list"]) == 0
    out = capsys.readouterr().out
    assert out.count("damaged:") == 7 and "set aside" not in out and "\x1b" not in out
    assert main(["cache", "verify", "--json"]) == 1
    assert sum(e["problem"] is not None for e in json.loads(capsys.readouterr().out)) == 7
    assert main(["cache", "verify"]) == 0
    assert main(["cache", "clear"]) == 0
    assert "removed 2" in capsys.readouterr().out and entry.path.with_name("thesis.txt").exists()


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


def test_a_key_that_another_process_makes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, looks = cache_module._private_key, []

    def made_after_the_first_look(path: Path) -> bytes | None:
        looks.append(path)
        found = real(path)
        if len(looks) == 1:  # here another process is faster
            EngineCache(tmp_path, 10**9).get_or_build(KEY, lambda: b"engine", bytes.decode)
        return found

    monkeypatch.setattr(cache_module, "_private_key", made_after_the_first_look)
    other = {**KEY, "version": "2"}
    cache = EngineCache(tmp_path, 10**9)
    assert cache.get_or_build(other, lambda: b"newer", bytes.decode) == "newer"
    assert cache.get_or_build(KEY, never, bytes.decode) == "engine"
    assert [entry.problem for entry in cache.entries(check=True)] == [None, None]


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
    for wrong in ("many", "²", "9" * 5000, "-1"):
        monkeypatch.setenv("TINYSEG_CACHE_MB", wrong)
        with pytest.raises(CacheError, match="whole number"):
            open_cache()


def test_a_named_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "file" / "inside"))
    with pytest.raises(CacheError, match=r"TINYSEG_CACHE=.* cannot be written"):
        tinyseg.load(engine="onnxruntime", precision="int8")


@pytest.fixture
def no_temporary_place() -> Iterator[None]:
    cache_place._temporary.cache_clear()
    yield
    cache_place._temporary.cache_clear()


@pytest.mark.parametrize("home", ["file", "~nosuch"])
def test_without_a_usable_place_there_is_a_temporary_one(
    home: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    no_temporary_place: None,
) -> None:
    (tmp_path / "file").write_text("")
    if home == "file":
        monkeypatch.delenv("TINYSEG_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.setenv("TINYSEG_CACHE", "~nosuch-user/cache")
    monkeypatch.setattr(cache_place.tempfile, "tempdir", str(tmp_path))
    with caplog.at_level(logging.WARNING, "tinyseg.cache"):
        first, told = open_cache()
        second, _ = open_cache()
    assert first is not None and second is not None and first.root == second.root and first.root.parent == tmp_path
    assert told.startswith("temporary (") and caplog.text.count("for this process only") == 1
    seg = tinyseg.load(engine="onnxruntime", precision="int8")
    assert seg.info.cache == told


def test_not_even_a_temporary_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_temporary_place: None) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("TINYSEG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(cache_place.tempfile, "tempdir", str(tmp_path / "missing"))
    cache, told = open_cache()
    assert cache is None and told.startswith("off (")
    assert tinyseg.load(engine="fake").info.cache == "not needed"


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
    assert "fake 1 fp32" in out and "96x64" in out and "1 engines" in out
    assert main(["cache", "verify"]) == 0
    capsys.readouterr()
    (entry,) = open_cache()[0].entries(check=False)  # type: ignore[union-attr]
    (entry.path / "engine.bin").write_bytes(b"other")
    assert main(["cache", "verify"]) == 1
    out = capsys.readouterr().out
    assert "checksum" in out and "set aside" in out
    assert main(["cache", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    EngineCache(tmp_path, 10**9).get_or_build(KEY, lambda: b"engine", bytes.decode)
    assert main(["cache", "clear"]) == 0
    assert "removed 1" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_second_start_compiles_nothing(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path / "cache"))
    frame = np.zeros((96, 128, 3), np.uint8)
    frame[20:70, 30:90] = 200
    first = tinyseg.load("small", "onnxruntime", precision)
    assert first.info.cache == "on"
    masks = first.embed(frame).predict(box=(30, 20, 90, 70), multimask=False, zoom="off")
    for way in ("build", "compile"):
        monkeypatch.setattr(f"tinyseg.engines.ort.OrtEngine.{way}", lambda *_: never())
    second = tinyseg.load("small", "onnxruntime", precision)
    again = second.embed(frame).predict(box=(30, 20, 90, 70), multimask=False, zoom="off")
    assert np.array_equal(masks.logits, again.logits)


def test_what_nothing_can_vouch_for_is_not_taken_from_a_shared_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32 on ONNX Runtime is the reference itself: where others can write, it is compiled from the model each time."""
    root = tmp_path / "cache"
    monkeypatch.setenv("TINYSEG_CACHE", str(root))
    frame = np.zeros((64, 64, 3), np.uint8)
    tinyseg.load("small", "onnxruntime", "fp32").embed(frame).predict(box=(9, 9, 40, 40), zoom="off")
    entries = {p.name for p in (root / "engines").iterdir()}
    assert len(entries) == 2  # encoder and decoder
    monkeypatch.setenv("TINYSEG_CACHE_SHARED", "1")
    monkeypatch.setattr("tinyseg.engines.ort.OrtEngine.restore", lambda *_: never())
    tinyseg.load("small", "onnxruntime", "fp32").embed(frame).predict(box=(9, 9, 40, 40), zoom="off")
    assert {p.name for p in (root / "engines").iterdir()} == entries


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX owners and modes")


@posix
def test_the_cache_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "new"
    monkeypatch.setenv("TINYSEG_CACHE", str(root))
    cache, _ = open_cache()
    assert cache is not None and cache.own and root.stat().st_mode & 0o777 == 0o700
    cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
    assert (root / "key").stat().st_mode & 0o777 == 0o600 and own_folder("timing") == root / "timing"
    root.chmod(0o777)
    with pytest.raises(CacheError, match=r"mode 0777.*chmod 700 .*TINYSEG_CACHE_SHARED=1"):
        open_cache()
    assert own_folder("timing") is None
    root.chmod(0o700)
    monkeypatch.setattr(cache_place.os, "getuid", lambda: 4321)
    with pytest.raises(CacheError, match="somebody else could have put engines there"):
        open_cache()


@posix
def test_a_key_that_others_can_read_is_made_anew(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 10**9)
    cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
    (tmp_path / "key").chmod(0o644)
    assert cache.get_or_build(KEY, lambda: b"again", bytes.decode) == "again"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_shared_cache_is_compared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another user wrote has a right checksum, and no code that says anything here."""
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path))
    monkeypatch.setenv("TINYSEG_CACHE_SHARED", "1")
    cache, told = open_cache()
    assert cache is not None and not cache.own and "shared" in told
    compared: list[str] = []

    def compare(engine: str) -> None:
        compared.append(engine)
        if engine == "evil":
            raise EngineError("other masks")

    cache.get_or_build(KEY, lambda: b"engine", bytes.decode, compare)
    assert cache.get_or_build(KEY, never, bytes.decode, compare) == "engine" and compared == ["engine"]
    (entry,) = cache.entries(check=True)
    (entry.path / "engine.bin").write_bytes(b"evil")
    facts = json.loads((entry.path / "entry.json").read_text())
    facts.update(bytes=4, sha256=hashlib.sha256(b"evil").hexdigest())
    (entry.path / "entry.json").write_text(json.dumps(facts))
    assert cache.get_or_build(KEY, lambda: b"mine", bytes.decode, compare) == "mine" and compared[-1] == "evil"


def test_an_altered_engine_in_a_shared_cache_is_found_by_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole way: a forged entry with a recomputed checksum is another graph's engine."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'tinyseg[compile]')")
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path))
    monkeypatch.setenv("TINYSEG_CACHE_SHARED", "1")
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[20:50, 30:70] = 200

    def answer() -> np.ndarray:
        seg = tinyseg.load(engine="onnxruntime", precision="int8")
        return seg.embed(frame).predict(box=(30, 20, 70, 50), multimask=False, zoom="off").logits

    expected = answer()
    cache = open_cache()[0]
    assert cache is not None
    forged = 0
    for entry in cache.entries(check=False):
        model = onnx.load_from_string((entry.path / "engine.bin").read_bytes())
        for weight in model.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT and int(np.prod(weight.dims)) >= 16:
                array = onnx.numpy_helper.to_array(weight)
                weight.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(-1.5), weight.name))
                forged += 1
        blob = model.SerializeToString()
        (entry.path / "engine.bin").write_bytes(blob)
        facts = json.loads((entry.path / "entry.json").read_text())
        facts.update(bytes=len(blob), sha256=hashlib.sha256(blob).hexdigest())
        (entry.path / "entry.json").write_text(json.dumps(facts))
    with caplog.at_level(logging.WARNING, "tinyseg.cache"):
        again = answer()
    assert forged and np.array_equal(again, expected) and caplog.text.count("does not keep the masks") == 2


def test_locks_of_another_user_stop_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root meets no refusal, the lock itself refuses; a link in a lock's place would have its target emptied."""
    cache = EngineCache(tmp_path, 10**9, own=False)

    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("filelock.FileLock.acquire", refuses)
        assert cache.get_or_build(KEY, lambda: b"engine", bytes.decode) == "engine"
    (tmp_path / "precious").write_text("years")
    for lock in (tmp_path / "locks").iterdir():
        lock.unlink()
    for name in ("remove", cache.entries(check=False)[0].path.name[:32]):
        (tmp_path / "locks" / f"{name}.lock").symlink_to(tmp_path / "precious")
    assert cache.clear() == 1 and cache.get_or_build(KEY, lambda: b"more", bytes.decode) == "more"
    assert (tmp_path / "precious").read_text() == "years"


@posix
def test_a_read_only_cache_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EngineCache(tmp_path, 10**9).get_or_build(KEY, lambda: b"engine", bytes.decode)
    cache = EngineCache(tmp_path, 10**9, own=False, writable=False)
    before = sorted(tmp_path.rglob("*"))
    assert cache.get_or_build(KEY, never, bytes.decode) == "engine"
    assert cache.get_or_build({**KEY, "version": "2"}, lambda: b"new", bytes.decode) == "new"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("renamed", [False, True])
def test_an_engine_in_the_place_of_another_is_rebuilt(renamed: bool, tmp_path: Path) -> None:
    """A whole entry of this user's, copied to where another one belongs, with its own key or with the other's."""
    cache = EngineCache(tmp_path, 10**9)
    cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
    other = {**KEY, "version": "2"}
    cache.get_or_build(other, lambda: b"other", bytes.decode)
    places = {str(e.key["version"]): e.path for e in cache.entries(check=True)}
    shutil.rmtree(places["2"])
    shutil.copytree(places["1"], places["2"])
    if renamed:
        facts = json.loads((places["2"] / "entry.json").read_text())
        (places["2"] / "entry.json").write_text(json.dumps({**facts, "key": other}))
    assert cache.get_or_build(other, lambda: b"built", bytes.decode) == "built"
    assert cache.get_or_build(KEY, never, bytes.decode) == "engine"


def test_what_was_just_built_stays_however_little_room_there_is(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 10)
    for version in ("1", "2"):
        cache.get_or_build({**KEY, "version": version}, lambda: b"x" * 1000, len)
        assert [e.key["version"] for e in cache.entries(check=True)] == [version]


def test_what_is_opened_counts_as_used(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 2_500_000)
    for i, version in enumerate(("1", "2")):
        cache.get_or_build({**KEY, "version": version}, lambda: b"x" * 1_000_000, len)
        (entry,) = [e for e in cache.entries(check=False) if e.key["version"] == version]
        os.utime(entry.path / "entry.json", (1000.0 + i, 1000.0 + i))
    cache.get_or_build({**KEY, "version": "1"}, never, len)  # the older one is used
    cache.get_or_build({**KEY, "version": "3"}, lambda: b"x" * 1_000_000, len)
    assert {e.key["version"] for e in cache.entries(check=False)} == {"1", "3"}


def test_what_killed_builds_left_goes_in_the_end(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 10**9)
    cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
    old, new = (tmp_path / "engines" / f"part-{name}" for name in ("old", "new"))
    for part in (old, new):
        part.mkdir()
    os.utime(old, (1000.0, 1000.0))
    cache.get_or_build({**KEY, "version": "2"}, lambda: b"engine", bytes.decode)
    assert not old.exists() and new.exists()  # the new one's build may still go on


def test_few_of_what_was_set_aside_are_kept(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, 10**9)
    for _ in range(cache_module.MOST_ASIDE + 3):
        cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
        (entry,) = cache.entries(check=True)
        (entry.path / "engine.bin").write_bytes(b"damage")
    assert len(list((tmp_path / "aside").iterdir())) == cache_module.MOST_ASIDE
