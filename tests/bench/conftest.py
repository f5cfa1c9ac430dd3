"""Timings that are tested for their form need few rounds, and a rival that answers at once."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def few_untimed_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.bench.measure.WARM_UP", 1)


@pytest.fixture
def small_peer(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a rival whose encoder is one convolution: files and reports, not the figure."""
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'tinyseg[peers]')")
    from tinyseg.bench import peers  # noqa: PLC0415 - needs torch

    def encoder() -> object:
        return torch.nn.Conv2d(3, 256, 16, 16)

    monkeypatch.setitem(peers.ENCODERS, "nanosam", ("NanoSAM", encoder))
    return "nanosam"
