"""The targets of `make fuzz` (tests/fuzzing.py): what fuzzing begins with is read, or refused by
the package's own errors, and a broken reader would be noticed.
"""

from __future__ import annotations

import random
import warnings

import fuzzing
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """The target of that name, made once."""
    made = {}

    def target(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = fuzzing.TARGETS[name](folder)
        return made[name]

    return target


def outcome(target, data):
    """None where the input was taken, else the error that refused it."""
    try:
        target.run(data)
    except target.allowed as error:
        return error
    return None


@pytest.mark.parametrize("name", fuzzing.NAMES)
def test_seeds_and_what_is_near_them_are_read_or_refused(name, targets):
    """Some of each, and in one line; a few hundred mutations without a guide."""
    target, rng = targets(name), random.Random(7)
    seen = [outcome(target, seed) for seed in target.seeds]
    assert None in seen
    assert any(seen)
    for _ in range(300):
        data = bytearray(rng.choice(target.seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data) + 1)
            cut = rng.choice(
                (b"", bytes([rng.randrange(256)]), b"\xff" * 4, rng.choice(target.words or ["0"]).encode())
            )
            data[place : place + rng.randint(0, 3)] = cut
        seen.append(outcome(target, bytes(data)))
    assert [str(error) for error in seen if error is not None and "\n" in str(error)] == []


def test_another_exception_is_a_finding_written_down_once_for_each_place(tmp_path):
    def broken(data):
        if data == b"fine":
            return
        if data.startswith(b"refused"):
            raise ValueError("as documented")
        raise KeyError(data)

    one_input = fuzzing.guarded(fuzzing.Target(broken, (ValueError,), []), tmp_path)
    for data in (b"fine", b"refused", b"one", b"two"):
        with warnings.catch_warnings():
            one_input(data)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["001.input", "001.txt"]
    assert (tmp_path / "001.input").read_bytes() == b"one"
    assert (tmp_path / "001.txt").read_text().startswith("KeyError in outside")


def test_a_result_that_breaks_a_promise_is_a_finding():
    with pytest.raises(fuzzing.Broken, match="other bytes"):
        fuzzing.promise(False, "other bytes")


def test_an_unknown_target_is_refused(capsys):
    with pytest.raises(SystemExit):
        fuzzing.main(["yaml"])
    assert "'yaml' is no target; expected some of idx, toml, manifest" in capsys.readouterr().err
