from __future__ import annotations

from pathlib import Path

import pytest

from tinyseg import diagnosis
from tinyseg.system import device

NVPMODEL = "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"


def told(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], machine: str = "aarch64") -> None:
    monkeypatch.setattr(device, "_read", lambda path: files.get(str(path)))
    monkeypatch.setattr(device.platform, "machine", lambda: machine)
    monkeypatch.setattr(device.platform, "processor", lambda: "")


def test_power_modes_of_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/etc/nvpmodel.conf": NVPMODEL, "/var/lib/nvpmodel/status": "pmode:0001"}
    told(monkeypatch, files)
    assert device.power_modes() == {0: "15W", 1: "25W", 2: "MAXN_SUPER"} and device.power_mode() == "25W (1)"
    trap = next(t for t in diagnosis.find_traps([], None, []) if "power mode" in t.problem)
    assert "25W (1); MAXN_SUPER is faster" in trap.problem and "nvpmodel -m 2 && sudo jetson_clocks" in trap.remedy
    files["/var/lib/nvpmodel/status"] = "pmode:0002"
    assert not [t for t in diagnosis.find_traps([], None, []) if "power mode" in t.problem]
    told(monkeypatch, {"/var/lib/nvpmodel/status": "pmode:0007"})
    assert device.power_mode() == "7" and device.power_modes() == {}


@pytest.mark.parametrize(
    ("files", "machine", "name"),
    [
        ({"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0", "/proc/cpuinfo": "CPU part\t: 0xd0b\n"}, "aarch64",
         "Raspberry Pi 5 Model B Rev 1.0, Cortex-A76"),
        ({"/proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd42\nprocessor\t: 1\nCPU part\t: 0xd42\n"}, "aarch64", "Cortex-A78AE"),
        ({"/proc/cpuinfo": "model name\t: AMD EPYC\n"}, "aarch64", "aarch64"),  # emulated: the file is the host's
        ({"/proc/cpuinfo": "model name\t: AMD EPYC\nmodel name\t: other\n"}, "x86_64", "AMD EPYC"), ({}, "x86_64", "x86_64"),
    ],
)  # fmt: skip
def test_processor_names(files: dict[str, str], machine: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, files, machine)
    assert device.processor_name() == name


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert device._read(tmp_path / "nothing") is None
