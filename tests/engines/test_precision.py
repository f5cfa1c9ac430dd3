from __future__ import annotations

import sys

import pytest

from tinyseg.engines import PrecisionFacts, choose_precision, cpu

SPEED = {"openvino": {"fp32": 1.0, "bf16": 1.5, "int8": 1.8}, "onnxruntime": {"fp32": 1.0, "int8": 0.9}}


@pytest.fixture(autouse=True)
def dot_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.engines.precision.int8_instruction", lambda: "avx512_vnni")


def facts(int8_loss: float | None = 0.1) -> PrecisionFacts:
    lost = {"bf16": 0.2} if int8_loss is None else {"bf16": 0.2, "int8": int8_loss}
    return PrecisionFacts(("fp32", "int8"), lost, SPEED)


def test_the_fastest_that_keeps_the_masks() -> None:
    name, why = choose_precision("openvino", ("bf16", "fp32", "int8"), facts())
    assert name == "int8" and "1.80 times as fast" in why and "0.10 points" in why
    assert choose_precision("openvino", ("fp32", "int8"), PrecisionFacts(("fp32",), {}, SPEED))[0] == "fp32"
    assert choose_precision("onnxruntime", ("fp32", "int8"), facts())[0] == "fp32"  # int8 was measured slower there


def test_of_precisions_that_are_nearly_as_fast_the_one_that_is_exact_or_wants_the_oldest_instructions() -> None:
    lost = {"bf16": 0.1, "fp16": 0.0, "int8": 0.2}
    offered = ("fp16", "bf16", "fp32", "int8")
    for bf16, fp16, int8, best in (
        (1.516, 1.537, 1.529, "int8"),
        (1.50, 1.56, 1.45, "bf16"),
        (1.4, 1.6, 1.4, "fp16"),
        (1.0, 1.02, 0.9, "fp32"),
    ):
        speed = {"openvino": {"fp32": 1.0, "bf16": bf16, "fp16": fp16, "int8": int8}}
        assert choose_precision("openvino", offered, PrecisionFacts(("fp32", "int8"), lost, speed))[0] == best


def test_int8_that_loses_too_much_or_was_never_measured_is_left_out() -> None:
    name, why = choose_precision("openvino", ("bf16", "fp32", "int8"), facts(0.8))
    assert name == "bf16" and "int8 loses 0.8 points" in why
    assert choose_precision("openvino", ("bf16", "fp32", "int8"), facts(None))[0] == "bf16"


def test_int8_wants_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyseg.engines.precision.int8_instruction", lambda: None)
    name, why = choose_precision("openvino", ("bf16", "fp32", "int8"), facts())
    assert name == "bf16" and "this processor lacks" in why


def test_a_precision_that_the_device_does_not_offer_is_told() -> None:
    name, why = choose_precision("openvino", ("fp32",), facts())
    assert name == "fp32" and "int8 is not offered here" in why


@pytest.mark.parametrize(
    ("machine", "flags", "saturates", "may"),
    [
        ("x86_64", {"avx2"}, True, True),
        ("AMD64", {"avx512f", "avx512_vnni"}, False, False),
        ("x86_64", {"avx2", "avx_vnni"}, False, False),
        ("x86_64", set(), False, True),
        ("aarch64", {"asimd"}, False, False),
    ],
)
def test_where_int8_sums_saturate(
    machine: str, flags: set[str], saturates: bool, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
    monkeypatch.setattr(cpu, "flags", lambda: frozenset(flags))
    assert cpu.int8_saturates() is saturates and cpu.int8_may_saturate() is may


def test_without_figures_the_engine_chooses() -> None:
    name, why = choose_precision("openvino", ("bf16", "fp32", "int8"), PrecisionFacts(("fp32", "int8")))
    assert name == "bf16" and "nothing was measured" in why


def test_flags_are_those_of_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "flags\t: sse avx2 avx512_vnni\nmodel name : x\nflags\t: sse avx2\n"
    cpu.flags.cache_clear()
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr("tinyseg.engines.cpu.Path.read_text", lambda *_, **__: text)
    assert cpu.flags() == {"sse", "avx2"} and cpu.int8_instruction() is None
    cpu.flags.cache_clear()
    monkeypatch.undo()
    assert cpu.fingerprint() == cpu.fingerprint()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library tells it on Linux")
def test_flags_of_arm_are_asked_of_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words as a Cortex-A76 and a Cortex-A72 have them; /proc/cpuinfo may be the host's."""

    class Library:
        def __init__(self, words: dict[int, int]) -> None:
            self.getauxval = lambda kind: words[kind.value]

    monkeypatch.setattr(cpu.platform, "machine", lambda: "aarch64")
    for words, told in (({16: 0x119FFF, 26: 0}, {"asimd", "asimdhp", "asimddp"}), ({16: 0xFF, 26: 0}, {"asimd"})):
        monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _, words=words: Library(words))
        cpu.flags.cache_clear()
        assert cpu.flags() == told
    assert cpu.int8_instruction() is None and not cpu.int8_saturates()
    cpu.flags.cache_clear()
