"""Payloads that no load may take, though every digest is right (hostile_cases.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.hostile_cases import LOADING, OPENING, RESUME, Bench, Case, Change, both


def array_to(name: str, change: Callable[[Any], Any]) -> Change:
    def do(arrays: dict[str, Any]) -> None:
        arrays[name] = change(arrays[name])

    return lambda bench: bench.arrays(do)


def filled(value: float) -> Callable[[Any], Any]:
    def do(array: Any) -> Any:
        array.flat[array.size // 2] = value
        return array

    return do


def resized(by: int) -> Change:
    """Payloads with so many bytes more; fewer than none is none."""

    def do(bench: Bench) -> None:
        for path in {bench.payload(), bench.payload("best")}:
            bench.sparse(path, max(0, path.stat().st_size + by))

    return do


def arrays(names: dict[str, list[str]]) -> Iterator[Case]:
    """Payloads that match their manifest and hold what no state does. names : {run: its arrays}."""
    for run, listed in names.items():
        for name in listed:
            read = name.startswith("parameters")
            commands = LOADING if read and run == "loop" else OPENING if read else (RESUME,)
            for what, change in _spoilt(name).items():
                yield Case(f"{run}: {name} {what}", change, commands=commands, run=run)
            whole = name.endswith(("seen", "apart", "order", "position"))
            for value in () if whole else (np.nan, np.inf, 3e38):
                large = filled(1e300 if value == 3e38 and ("sums" in name or run == "left") else value)
                words = (name,)
                yield Case(
                    f"{run}: {name} with {value}", array_to(name, large), (4,), commands=commands, words=words, run=run
                )
    for name, value in {"order": 3, "betas": 0.5, "position": 99, "counts": -1.0, "seconds": -1.0}.items():
        change = array_to(f"epoch/{name}", filled(value))
        yield Case(f"left: epoch/{name} with {value}", change, commands=(RESUME,), run="left")
    for name in ("parameters/extra", "parameters/forward[7]", "velocity/extra", "warm_start/extra", "other/x", "x"):

        def add(bench: Bench, name: str = name) -> None:
            bench.arrays(lambda arrays: arrays.update({name: np.zeros(3, np.float32)}))

        yield Case(f"array {name} that no state has", add, commands=OPENING if "parameters" in name else (RESUME,))

    def without(part: str) -> Change:
        return lambda bench: bench.arrays(lambda found: [found.pop(key) for key in list(found) if key.startswith(part)])

    yield Case("no velocity", without("velocity"), commands=(RESUME,))
    yield Case("no arrays at all", without(""))
    thin = array_to("parameters/input", lambda array: np.zeros((10**12, 0), np.float32))
    yield Case("an input of 10^12 rows without columns", thin)


def _spoilt(name: str) -> dict[str, Change]:
    """Changes of one array that no load may accept."""

    def other(array: Any) -> Any:
        return array.astype(np.float64 if array.dtype != np.float64 else np.float32)

    def turned(array: Any) -> Any:  # a square one is only known by the digest
        return array.T.copy() if array.T.shape != array.shape else array[None]

    found: dict[str, Change] = {
        "missing": lambda bench: bench.arrays(lambda arrays: arrays.pop(name)),
        "of another shape": array_to(name, lambda array: np.concatenate([array, array])),
        "turned": array_to(name, turned),
        "of another dtype": array_to(name, other),
        "of half the samples": array_to(name, lambda array: array[: len(array) // 2]),
    }
    return {**found, "out of range": array_to(name, lambda array: np.full_like(array, 77))} if "seen" in name else found


def payloads() -> Iterator[Case]:
    """Payloads that are no safetensors, too large, or not those of the manifest."""

    def header(content: bytes) -> Change:
        whole = len(content).to_bytes(8, "little") + content + bytes(64)
        return both(lambda bench, name: bench.put(whole, name))

    tensor = '{"parameters/input":{"dtype":"F32","shape":%s,"data_offsets":%s}}'
    for name, content in {
        "1e15 bytes of one array": (tensor % ("[250000000000000]", "[0,1000000000000000]")).encode(),
        "a shape that is not its bytes": (tensor % ("[9,9]", "[0,64]")).encode(),
        "negative offsets": (tensor % ("[16]", "[-64,0]")).encode(),
        "100,000 levels": b'{"a":' * 100_000,
        "an unknown dtype": (tensor % ("[16]", "[0,64]")).replace("F32", "Q7").encode(),
        "no table": b"[1,2]",
        "no JSON": b"\xff" * 40,
        "two megabytes": b"{" + b" " * 2_000_000 + b"}",
    }.items():
        yield Case(f"payload whose header claims {name}", header(content))
    for name, size in {"1e15": 10**15, "2^63": 1 << 63, "0": 0, "more than the file": 10**6}.items():

        def claim(bench: Bench, size: int = size) -> None:
            for which in ("last", "best"):
                content = bench.payload(which).read_bytes()
                bench.put(size.to_bytes(8, "little") + content[8:], which)

        yield Case(f"payload whose header has {name} bytes", claim)
    for what, by in {"1 byte less": -1, "1 byte more": 1, "nothing": -(10**9)}.items():
        yield Case(f"payload of {what}", resized(by))
    for size in (3 << 30, 1 << 40):

        def holes(bench: Bench, size: int = size) -> None:
            for which in ("last", "best"):
                bench.sparse(bench.payload(which), size)
                bench.set("bytes", to=size, name=which)

        yield Case(f"payload of {size >> 30} GB of holes", holes)

    def of_another(bench: Bench) -> None:
        """Both resigned: only what the payload itself is bound to tells."""
        other = Bench(bench.others["seed"])
        for which in ("last", "best"):
            bench.put(other.payload(which).read_bytes(), which)

    yield Case("payload of another seed under the own manifest", of_another, words=("another run or epoch",))

    def of_another_epoch(bench: Bench) -> None:
        content = (bench.checkpoints / bench.manifest("kept-00001")["payload"]).read_bytes()
        for which in ("last", "best"):
            bench.put(content, which)

    yield Case("payload of another epoch under the own manifest", of_another_epoch, words=("another run or epoch",))
