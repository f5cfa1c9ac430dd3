"""Cache entries of strangers: whatever lies in the cache, an engine comes back that this user built, and nothing dies."""

from __future__ import annotations

import json
import logging
import random
import shutil
from pathlib import Path

import pytest

from tests.attack.conftest import Attack
from tests.attack.mutation import dumped, seeds, spoiled_bytes, spoiled_json
from tinyseg.cli import main
from tinyseg.engines.cache import EngineCache, entry_key

KEY = entry_key({"engine": "fake", "version": "1", "precision": "fp32"}, "ab" * 32, {"height": 64, "width": 96})


def disturb(draw: random.Random, entry: Path, facts: bytes, blob: bytes) -> None:
    """Spoil one thing of an entry."""
    how = draw.randrange(8)
    told, engine = entry / "entry.json", entry / "engine.bin"
    if how <= 2:
        told.write_bytes(dumped(spoiled_json(draw, facts.decode())))
    elif how == 3:
        told.write_bytes(spoiled_bytes(draw, facts))
    elif how == 4:
        engine.write_bytes(spoiled_bytes(draw, blob))
    elif how == 5:
        draw.choice((told, engine)).unlink()
    elif how == 6:  # another kind of thing in a file's place
        place = draw.choice((told, engine))
        place.unlink()
        if draw.randrange(2):
            place.mkdir()
        else:
            place.symlink_to(draw.choice(("/dev/zero", "/dev/null", str(entry), "nowhere")))
    else:  # or in the entry's
        shutil.rmtree(entry)
        kind = draw.randrange(3)
        if kind == 0:
            entry.write_bytes(b"x")
        elif kind == 1:
            entry.symlink_to(draw.choice(("/dev", "nowhere", str(entry))))
        else:
            entry.mkdir()


def test_cache_entries(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    attack: Attack,
) -> None:
    monkeypatch.setenv("TINYSEG_CACHE", str(tmp_path))
    caplog.set_level(logging.ERROR, "tinyseg.cache")
    cache = EngineCache(tmp_path, 10**9)
    cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
    (entry,) = cache.entries(check=True)
    facts, blob = (entry.path / "entry.json").read_bytes(), (entry.path / "engine.bin").read_bytes()

    def check(draw: random.Random) -> None:
        disturb(draw, entry.path, facts, blob)
        action = draw.randrange(4)
        if action == 0:
            assert main(["cache", draw.choice(("list", "verify")), *draw.choice(([], ["--json"]))]) in (0, 1)
            capsys.readouterr()
        elif action == 1:
            for one in cache.entries(check=True):
                json.dumps(dict(one.key))
        # Either it is whole, or it is built anew: never anything else.
        assert cache.get_or_build(KEY, lambda: b"engine", bytes.decode) == "engine"

    attack("cache entries", seeds, check, 200, each=10)


def test_the_key_file(tmp_path: Path, caplog: pytest.LogCaptureFixture, attack: Attack) -> None:
    caplog.set_level(logging.ERROR, "tinyseg.cache")
    cache = EngineCache(tmp_path, 10**9)
    key = tmp_path / "key"

    def check(draw: random.Random) -> None:
        cache.get_or_build(KEY, lambda: b"engine", bytes.decode)
        how = draw.randrange(4)
        if how == 0:
            key.write_bytes(spoiled_bytes(draw, key.read_bytes()))
        else:
            key.unlink()
            if how == 1:
                key.symlink_to(draw.choice(("/dev/zero", "nowhere")))
            elif how == 2:
                key.mkdir()
        assert cache.get_or_build(KEY, lambda: b"engine", bytes.decode) == "engine"
        assert key.is_file() and not key.is_symlink() and key.stat().st_size == 32

    attack("cache key files", seeds, check, 40, each=10)
