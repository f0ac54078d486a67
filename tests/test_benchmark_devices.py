"""benchmarks/devices.py, small: all methods learn, fractions follow from speeds and peaks, and a
GPU would be used in the same way.
"""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from benchmarks import devices
from benchmarks.counting import FLOPS


def test_all_methods_are_measured_and_related_to_the_peak(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(devices, "peak", lambda device, factors: 1e10)
    devices.main(
        preset="digits",
        device="cpu",
        batches="50",
        products="full,bf16",
        limit=100,
        epochs=1,
        out=tmp_path / "found.json",
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["method"], row["factors"], row["batch"]) for row in found["rows"]] == [
        ("eq. 14, numba", "full", 20),
        ("eq. 14, torch", "full", 50),
        ("eq. 14, torch", "bf16", 50),
        ("backpropagation", "full", 50),
    ]
    for row in found["rows"]:
        assert row["peak_share"] == pytest.approx(FLOPS * row["products"] * row["images_per_second"] / 1e10)
        assert row["images_per_second"] == pytest.approx(100 / row["seconds"])
    assert "backpropagation" in capsys.readouterr().out


def test_the_peak_is_a_speed() -> None:
    assert devices.peak("cpu", "full", seconds=0.05) > 1e8
