"""The comparison of bits between commits: equal to itself, and a changed weight is seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import bits


def test_a_run_has_the_bits_it_had_and_a_changed_digest_is_reported(tmp_path, capsys) -> None:
    kept = tmp_path / "before.json"
    assert bits.main(["loop/numba", "--out", str(kept)]) == 0
    assert bits.main(["loop/numba", "--compare", str(kept)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("same")
    stored = json.loads(kept.read_text())
    kept.write_text(json.dumps(dict.fromkeys(stored, "0" * 64)))
    assert bits.main(["loop/numba", "--compare", str(kept)]) == 1
    assert "1 of 1 runs learned other bits" in capsys.readouterr().err


def test_other_settings_are_other_bits() -> None:
    assert bits.digest("loop", "numba") != bits.digest("loop-centred", "numba")


def test_an_unknown_run_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        bits.main(["lop"])
    assert "no run is called 'lop'; choose among" in capsys.readouterr().err
