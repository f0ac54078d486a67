"""Run folders changed from outside, continued: things that are no files, edited configurations and
records, files of other runs, what is lost (hostile_cases.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile_cases import EVALUATE, LOADING, OPENING, RESUME, Bench, Case, Change, copy_from

KINDS = ("pipe", "folder", "link", "broken link", "device", "socket")


def no_files() -> Iterator[Case]:
    """Pipes, folders, links, devices and sockets where files must be; nothing elsewhere changes."""
    readers = {
        "checkpoints/last.json": (RESUME,),
        "checkpoints/best.json": OPENING,
        "payload": (RESUME, EVALUATE),
        "environment.json": OPENING,
        "metrics.jsonl": OPENING,
        "probes.jsonl": (RESUME,),
        "summary.json": (EVALUATE,),
        ".lock": (RESUME,),
    }
    for file, commands in readers.items():
        for kind in KINDS:
            yield Case(f"{file} is a {kind}", lambda b, f=file, k=kind: b.replace(f, k), (7,), commands)
    for kind in KINDS:
        codes = (7,) if kind == "link" else (2,)
        yield Case(f"config.toml is a {kind}", lambda b, k=kind: b.replace("config.toml", k), codes)
    for kind in ("link", "broken link", "device", "pipe"):

        def elsewhere(bench: Bench, kind: str = kind) -> None:
            bench.replace("checkpoints", kind)

        yield Case(f"checkpoints is a {kind}", elsewhere, (5, 7))

    def second_name(bench: Bench) -> None:
        (bench.folder / "precious").write_text("precious")
        (bench.folder / ".lock").unlink(missing_ok=True)
        os.link(bench.folder / "precious", bench.folder / ".lock")

    yield Case(".lock is a second name of a file", second_name, (7,), (RESUME,))


def lost() -> Iterator[Case]:
    """Files that are gone."""
    for file, codes, commands in (
        ("checkpoints/last.json", (5,), (RESUME,)),
        ("checkpoints/best.json", (5,), (EVALUATE,)),
        ("payload", (5,), OPENING),
        ("environment.json", (5,), OPENING),
        ("metrics.jsonl", (5,), OPENING),
        ("probes.jsonl", (5,), (RESUME,)),
        ("config.toml", (2,), OPENING),
    ):
        yield Case(f"{file} is lost", lambda b, f=file: b.replace(f, "nothing"), codes, commands)
    best = "checkpoints/best.json"
    yield Case(f"{best} is lost when it goes on", lambda b: b.replace(best, "nothing"), (0,), (RESUME,), noted=True)
    yield Case("summary.json is lost", lambda b: (b.folder / "summary.json").unlink(), (0,), same=True)
    yield Case("figures are lost", lambda b: shutil.rmtree(b.folder / "figures"), (0,), same=True)
    yield Case(".lock is lost", lambda b: (b.folder / ".lock").unlink(), (0,), same=True)

    def all_lost(bench: Bench) -> None:
        shutil.rmtree(bench.checkpoints)

    yield Case("all checkpoints are lost", all_lost, (5,), words=("checkpoint",))
    yield Case(
        "all manifests are lost",
        lambda b: [path.unlink() for path in b.checkpoints.glob("*.json")] and None,
        (5,),
        words=("checkpoint",),
    )

    def stale(bench: Bench) -> None:
        for folder in (bench.folder, bench.checkpoints):
            (folder / ".last.json.123.tmp").write_bytes(b"half")
        (bench.folder / ".checkpoints.99.tmp").mkdir()

    yield Case("temporary files of a killed process", stale, (0,), same=True)
    yield Case("a line cut short", lambda b: _append(b, b'{"epoch": 3, "tr'), (0,), (RESUME,), same=True)


def _append(bench: Bench, content: bytes) -> None:
    with (bench.folder / "metrics.jsonl").open("ab") as file:
        file.write(content)


def configurations() -> Iterator[Case]:
    """Edits of config.toml."""
    for name, old, new in (
        ("beta", "beta = 1.0", "beta = 0.5"),
        ("a rate", "loop = 0.5", "loop = 0.25"),
        ("data.limit", "limit = 60", "limit = 40"),
        ("the seed", "seed = 0", "seed = 1"),
        ("the batch", "batch = 20", "batch = 10"),
        ("momentum", "momentum = 0.5", "momentum = 0.0"),
        ("the firing rate", '"hard_sigmoid"', '"logistic"'),
        ("the rule", '"hebbian"', '"gradient"'),
        ("the precision", '"float32"', '"float64"'),
        ("units", "hidden = [6]", "hidden = [7]"),
        ("the tolerance", "absolute = 0.0001", "absolute = 0.001"),
        ("validation", "validation = 200", "validation = 100"),
    ):
        yield Case(f"config.toml: {name} edited", _edit(old, new), (5,), LOADING, words=("was", "now"))
    for name, old, new in (
        ("samples of probes", "samples = 5", "samples = 4"),
        ("epochs", "epochs = 2", "epochs = 3"),
        ("a comment", "[data]", "# mine\n[data]"),
        ("spaces", "beta = 1.0", "beta  =  1.0"),
    ):
        yield Case(f"config.toml: {name} edited", _edit(old, new), (0,), noted=True)
    for name, text in {
        "empty": "",
        "5,000 digits": "seed = " + "9" * 5000,
        "100,000 levels of lists": "[network]\nhidden = " + "[" * 100_000,
        "100,000 levels of a key": "a" + ".a" * 100_000 + " = 1",
        "100,000 levels of a table": "[a" + ".a" * 100_000 + "]",
        "3,000 levels of tables in line": "a = " + "{b = " * 3000 + "1" + "}" * 3000,
        "a level in a known key": "network.hidden" + ".a" * 90 + " = 1",
        "no text": "\x00\xff\x00",
        "ten megabytes": "# " + "x" * 10_000_000,
    }.items():
        yield Case(f"config.toml: {name}", lambda b, t=text: _write(b, t), (2,))
    for name, key, value in (
        ("a billion units", "hidden = [6]", "hidden = 1e9"),
        ("a billion units in whole numbers", "hidden = [6]", "hidden = 1_000_000_000"),
        ("a million times a million weights", "hidden = [6]", "hidden = [1_000_000, 1_000_000]"),
        ("a hundred thousand layers", "hidden = [6]", f"hidden = [{'1,' * 99_999}1]"),
        ("2^70 epochs", "epochs = 2", f"epochs = {2**70}"),
        ("a batch of 2^62", "batch = 20", f"batch = {2**62}"),
        ("1e18 passes", "[solver]", "[solver]\nmax_passes = 1_000_000_000_000_000_000"),
        ("a billion passes remembered", "[solver]", "[solver]\nmemory = 1_000_000_000"),
        ("a loop of -0.0", "loop_scale = 0.3", "loop_scale = -0.0"),
        ("a rate of -0.0", "loop = 0.5", "loop = -0.0"),
        ("a limit of 2^63", "limit = 60", f"limit = {2**63}"),
        ("infinite beta", "beta = 1.0", "beta = inf"),
        ("a seed of 400 digits", "seed = 0", f"seed = {'9' * 400}"),
    ):
        yield Case(f"config.toml: {name}", _edit(key, value), (2,))


def _edit(old: str, new: str) -> Change:
    return lambda bench: bench.text("config.toml", old, new)


def _write(bench: Bench, text: str) -> None:
    (bench.folder / "config.toml").write_bytes(text.encode("latin-1"))


def records() -> Iterator[Case]:
    """Edits of metrics, probes, environment and summary."""
    for changes in (
        *({"valid_error": value} for value in (-5, 101, float("nan"), float("inf"), "3", True, [], 50.0)),
        *({"train_error": value} for value in (-1e-9, "x", 1e308)),
        *({"epoch": value} for value in (2.0, "2", True, 3, None, 2**70, -1, ...)),
        *({"seconds": value} for value in (-1, "x", None, [])),
        *({"alignment_degrees": value} for value in ([], {"W1": "x"}, {"W1": 400.0}, 3)),
        *({"dead_outputs": value} for value in ("x", [1.5], {"a": 1}, [-1])),
        *({"saturation": value} for value in ([], {"output": "x"}, {"output": [2.0, 0.0]})),
        *({"stuck_units": value} for value in ([], {"hidden1": 3}, {"hidden1": [-1, 0]}, {"hidden1": [0.5, 0]})),
        {"unconverged": -1},
        {"residual": "x"},
        {"loop_norm": -2},
        {"more": 1},
    ):
        (key, value), *_ = changes.items()
        words = ("metrics.jsonl", key) if value is not ... and key != "more" and value != 50.0 else ("metrics.jsonl",)
        named = "removed" if value is ... else repr(value)[:30]
        yield Case(f"metrics: {key} {named}", _line("metrics.jsonl", changes), words=words)
    for changes in (
        *({"epoch": value} for value in ("0", None, -1, True, 1e300, ...)),
        {"converged": -1},
        {"alignment": 3},
        {"stability": "x"},
        {"gradient": {"degrees": float("nan")}},
        {"more": 1},
    ):
        (key, value), *_ = changes.items()
        named = "removed" if value is ... else repr(value)[:30]
        yield Case(
            f"probes: {key} {named}",
            _line("probes.jsonl", changes),
            commands=(RESUME,),
            words=("probes.jsonl",),
        )
    for file, commands in (("metrics.jsonl", OPENING), ("probes.jsonl", (RESUME,))):
        for name, change in {
            "lines swapped": lambda lines: lines[::-1],
            "a line twice": lambda lines: [lines[0], *lines],
            "a line less": lambda lines: lines[:-1],
            "none": lambda lines: [],
            "a line of text": lambda lines: [*lines[:-1], "hello"],
            "a deep line": lambda lines: [*lines[:-1], "[" * 100_000],
            "a list": lambda lines: [*lines[:-1], "[1, 2]"],
            "5,000 digits": lambda lines: [*lines[:-1], '{"epoch": ' + "9" * 5000 + "}"],
            "1e999": lambda lines: [*lines[:-1], '{"epoch": 2, "train_error": 1e999}'],
            "letters in another case": lambda lines: [line.replace("e-0", "E-0") + " " for line in lines],
        }.items():

            def rewritten(bench: Bench, file: str = file, change: Any = change) -> None:
                path = bench.folder / file
                path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))

            yield Case(f"{file}: {name}", rewritten, commands=commands, words=(file,))
        yield Case(
            f"{file}: 10 GB of holes",
            _sparse(file, 10 << 30),
            commands=commands,
            words=(file,),
        )
    for key, value in (
        *(("identity", value) for value in (..., "", "0" * 32, 5, None)),
        *(("data", value) for value in (..., {}, [], {"digits": 3}, {"train": "0" * 64})),
        ("versions", []),
        ("versions", {"numpy": 3}),
        ("resumed", "x"),
        ("resumed", [1]),
        ("seed", "x"),
        ("cores", -1),
        ("threads", {"numba": "x"}),
        ("command", 3),
        ("config_sha256", 5),
        ("arguments", "x"),
    ):
        named = "removed" if value is ... else repr(value)[:30]
        code = (3, 5) if key == "data" else (5,)
        words = () if key == "data" or value == "0" * 32 else ("environment.json", key)
        yield Case(
            f"environment: {key} {named}",
            _setting("environment.json", key, value),
            code,
            words=words,
        )
    for name, content in {"cut": b'{"comm', "a list": b"[]", "deep": b"[" * 100_000, "binary": b"\xff\xfe\x00"}.items():
        for file, commands in (("environment.json", OPENING), ("summary.json", (EVALUATE,))):
            yield Case(f"{file} {name}", _content(file, content), commands=commands, words=(file,))
    for key, value in (
        ("best", 3),
        ("best", {"epoch": 1, "valid_error": "x"}),
        ("last", []),
        ("epochs", "x"),
        ("status", 5),
        ("seconds", -1),
    ):
        change = _setting("summary.json", key, value)
        yield Case(f"summary: {key} {value!r}", change, commands=(EVALUATE,), words=("summary.json",))


def _line(file: str, changes: dict[str, Any]) -> Change:
    return lambda bench: bench.line(file, 2, **changes)


def _sparse(file: str, size: int) -> Change:
    return lambda bench: bench.sparse(bench.folder / file, size)


def _content(file: str, content: bytes) -> Change:
    return lambda bench: (bench.folder / file).write_bytes(content) and None


def _setting(file: str, key: str, value: Any) -> Change:
    """One key of a JSON file; ... removes it."""

    def change(found: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in {**found, key: value}.items() if each is not ...}

    return lambda bench: bench.json(file, change)


def others() -> Iterator[Case]:
    """Files of a run of the same configuration (twin), and of one with another seed."""
    for run in ("twin", "seed"):
        for files, commands in (
            (("checkpoints",), LOADING),
            (("checkpoints/last.json",), (RESUME,)),
            (("checkpoints/best.json",), OPENING),
            (("checkpoints", "metrics.jsonl", "probes.jsonl"), OPENING),
            (("environment.json",), OPENING),
            (("checkpoints", "environment.json"), OPENING),
            (("metrics.jsonl",), OPENING),
        ):
            yield Case(f"{' and '.join(files)} of the {run}", copy_from(run, *files), commands=commands)
    yield Case(
        "config.toml of the seed", copy_from("seed", "config.toml"), commands=LOADING, words=("seed was 0, now 1",)
    )
    earlier = copy_from("earlier", "checkpoints")
    yield Case("checkpoints of an earlier time", earlier, (0,), (RESUME,), same=True)
    for file in ("metrics.jsonl", "probes.jsonl"):
        yield Case(f"{file} of an earlier time", copy_from("earlier", file), commands=(RESUME,), words=(file,))
    yield Case("summary.json of an earlier time", copy_from("earlier", "summary.json"), (0,), same=True)
    yield Case("summary.json of the twin", copy_from("twin", "summary.json"), commands=(EVALUATE,))
    yield Case("config.toml of the twin", copy_from("twin", "config.toml"), (0,), same=True)
    yield Case("probes.jsonl of the twin", copy_from("twin", "probes.jsonl"), (0, 5), (RESUME,), same=True)


def precious(folder: Path) -> bool:
    """Whether what a case put elsewhere is still as it was."""
    return all(path.read_text() == "precious" for path in folder.glob("precious"))


def edited(folder: Path) -> Any:
    """The metrics without clocks."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_second")} for line in lines]
