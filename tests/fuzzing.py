"""Coverage-guided fuzzing of what comes from elsewhere: IDX files, configurations in TOML,
manifests and payloads of checkpoints.

    make fuzz                                      all of them (outside the continuous integration)
    make fuzz FUZZ="toml --runs 20000 --seed 7"

A target is given bytes, turns them into files in a folder of its own, and calls the package's
reader. Whatever the bytes are, the reader returns what it promises or raises one of the errors it
documents. Everything else is a finding: another exception, a result that breaks a promise (one
file is kept for each place it comes from), an input that takes longer than 10 s or more memory
than allowed. Corpora are made on the fly; `--keep FOLDER` keeps them and the findings.

It needs atheris, which brings libFuzzer: pip install 'fsp_dynamics[fuzz]'.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIMIT = 10  # seconds for one input
RUNS = {"idx": 780_000, "toml": 115_000, "manifest": 115_000}
MEMORY = {"idx": 2_000, "toml": 2_000, "manifest": 3_000}  # megabytes, of the whole process
LONGEST = {"idx": 4_096, "toml": 8_192, "manifest": 16_384}  # bytes of an input
FIRST_PARTS = ("fsp_dynamics", "tomllib", "json")  # whose branches guide the search
NAMES = tuple(RUNS)


class Broken(Exception):
    """A reader returned something other than it promises."""


def promise(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


@dataclass(slots=True)
class Target:
    """One reader. run(bytes) : returns, or raises one of `allowed`; all else is a finding."""

    run: Callable[[bytes], None]
    allowed: tuple[type[BaseException], ...]
    seeds: list[bytes]
    words: list[str] = field(default_factory=list)  # that mutations may insert


# IDX


def idx_target(folder: Path) -> Target:
    """The first byte chooses: how many dimensions, packed or not, one file or a data set."""
    import numpy as np

    from fsp_dynamics.datasets import read_dataset, read_idx
    from fsp_dynamics.errors import DatasetError

    path, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"

    def run(data: bytes) -> None:
        kind, body = data[:1] or b"\0", data[1:]
        code = kind[0]
        content = gzip.compress(body, 1, mtime=0) if code & 16 else body
        if code & 32:  # what stands after the end, or is missing there
            content = content + body[:3] if code & 64 else content[:-3]
        path.write_bytes(content)
        if code & 8:
            count = int.from_bytes(body[4:8], "big") % 64
            labels.write_bytes(bytes((0, 0, 8, 1)) + struct.pack(">I", count) + bytes(i % 3 for i in range(count)))
            found = read_dataset(path)
            for part in (found.train, found.valid, found.test):
                promise(part.images.dtype == np.float32 and part.labels.dtype == np.int64, "another dtype")
                promise(len(part.images) == len(part.labels), "labels and images of other numbers")
                promise(bool(((part.images >= 0) & (part.images <= 1)).all()), "pixels outside [0, 1]")
            return
        shape: list[int | None] = [None] * (1 + code % 4)
        if code & 128:
            shape[0] = 3
        array = read_idx(path, shape)
        promise(array.dtype == np.uint8 and array.ndim == len(shape) and array.size > 0, "another array than asked for")
        promise(not code & 128 or array.shape[0] == 3, "another length than asked for")
        plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        promise(array.tobytes() == plain[4 + 4 * len(shape) :], "other bytes than the file holds")

    def idx(*dims: int) -> bytes:
        size = int(np.prod(dims))
        header = bytes((0, 0, 8, len(dims))) + struct.pack(f">{len(dims)}I", *dims)
        return header + bytes(i % 256 for i in range(size))

    seeds = [bytes([code]) + idx(*dims) for code in (0, 16, 128, 48, 112) for dims in ((5,), (3, 4), (3, 2, 2), (3,))]
    seeds += [bytes([code + len(dims) - 1]) + idx(*dims) for code in (0, 16, 128, 144) for dims in ((3, 4), (3, 2, 2))]
    seeds += [bytes([code]) + idx(12, 2, 2) for code in (8, 24, 40)]
    seeds += [b"\0" + gzip.compress(idx(6), mtime=0) * times for times in (1, 2)]
    return Target(run, (DatasetError,), seeds, [r"\x00\x00\x08\x01", r"\x00\x00\x08\x03", r"\x1f\x8b\x08", r"\xff" * 4])


# TOML


def toml_target(folder: Path) -> Target:
    """A configuration; one that is accepted says the same after it was written and read again."""
    from fsp_dynamics.errors import ConfigurationError
    from fsp_dynamics.experiments.config_io import PRESETS, load_config, read_value, to_toml

    path, again = folder / "given.toml", folder / "again.toml"

    def run(data: bytes) -> None:
        if data[:1] == b"\0":  # a value of the command line
            read_value(data[1:].decode("utf-8", "surrogateescape"))
            return
        path.write_bytes(data)
        _, config = load_config(path)
        again.write_text(to_toml(config), encoding="utf-8")
        promise(load_config(again)[1] == config, "a configuration that changes by being written")

    presets = [file.read_bytes() for file in sorted(PRESETS.glob("*.toml"))]
    keys = sorted({match for text in presets for match in re.findall(rb"^(\w+) =|^\[([\w.]+)\]", text, re.M)})
    words = [word.decode() for pair in keys for word in pair if word]
    words += [
        "1e400",
        "-0.0",
        "nan",
        "inf",
        "1e9",
        "true",
        "''",
        "[]",
        "[[",
        "]]",
        "{}",
        "'''",
        '\\"\\"\\"',
        "0x1",
        "2**70",
    ]
    words += [
        "solver.",
        "learning.",
        "network.",
        "data.path",
        "family",
        "rule",
        "rho",
        "9" * 40,
        "1979-05-27",
        "\\\\u0000",
    ]
    seeds = [*presets, b"\x001,2", b"\0[1]", b"\0one-sided", b"\0.5e3", b"\xef\xbb\xbf" + presets[0], b"a = [" * 40]
    seeds += [b"\n".join(line for line in text.splitlines() if not line.startswith(b"#")) for text in presets[:3]]
    return Target(run, (ConfigurationError,), seeds, words)


# Checkpoints


def manifest_target(folder: Path) -> Target:
    """The first byte chooses what of a run is replaced by the rest. Then the checkpoint is loaded
    and a trainer restored, as resuming does.
    """
    from fsp_dynamics.errors import CheckpointError, ConfigurationError, NotFiniteError

    home = Home(folder / "run")
    ways = (
        home.as_it_is,
        home.changed,
        home.whole,
        home.payload_changed,
        home.values_changed,
        home.environment,
        home.lines,
    )

    def run(data: bytes) -> None:
        home.put_back()
        ways[(data[:1] or b"\0")[0] % len(ways)](data[1:])
        home.restore()

    table = dict(home.table)
    strange: list[dict[str, Any]] = [{"epoch": "1"}, {"epoch": 2**70}, {"epoch": True}, {"payload": "../x"}]
    strange += [{"bytes": -1}, {"format": 1}, {"format": 2}, {"values": []}, {"rng": {}}, {"run": None}]
    rng = table["rng"]
    of_stream = [{"rng": {**rng, "bit_generator": "MT19937"}}, {"rng": {**rng, "state": {"state": -1, "inc": 2**200}}}]
    seeds = [b"\0" + home.manifest, b"\x02" + json.dumps(table).encode(), b"\x03" + home.payload]
    seeds += [
        b"\x01" + json.dumps(each).encode() for each in [*({key: table[key]} for key in table), *strange, *of_stream]
    ]
    seeds += [
        b"\x04" + json.dumps(each).encode() for each in [{"rng": rng, **table["values"]}, *of_stream, {"probes": 1}]
    ]
    seeds += [b"\x05" + home.environment_text, b"\x06" + home.metrics_text]
    words = [*table, "null", "true", "1e400", "NaN", "Infinity", "-1", "[]", "{}", "F32", "F64", "U8", "data_offsets"]
    words += ["shape", "dtype", "parameters/", "velocity/", "epoch/", "warm_start/", "__metadata__", "9" * 30, "PCG64"]
    return Target(run, (CheckpointError, NotFiniteError, ConfigurationError), seeds, words)


class Home:
    """A small run, left between two batches of its second epoch, and its files.

    table : the manifest without its own digest.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        from fsp_dynamics.datasets import dataset_from_arrays
        from fsp_dynamics.experiments.backend import NUMBA
        from fsp_dynamics.experiments.checkpoint import read_manifest, save_checkpoint
        from fsp_dynamics.experiments.folder import RunFolder
        from fsp_dynamics.experiments.objects import Objects
        from fsp_dynamics.experiments.runner import train
        from fsp_dynamics.experiments.trainer import Resources, trainer_of
        from fsp_dynamics.training.ranks import ALONE

        rng = np.random.default_rng(0)
        data = dataset_from_arrays(rng.random((40, 4)), np.arange(40) % 2)
        settings = {"network.hidden": [3], "learning.batch": 5, "learning.momentum": 0.5, "learning.epochs": 1}
        settings |= {"learning.rates.forward": [1.0], "probes.samples": 0, "solver.name": "reference"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = train("digits", data=data, out=folder, progress=False, **settings)
        self.files, self.config = RunFolder(folder), run.config
        resources = Resources(NUMBA, ALONE, objects=Objects(None))
        self.trainer = trainer_of("rate").build(run.config, data, resources)
        self.trainer.epoch()

        def leave(done: int, total: int, wrong: float) -> None:
            if done > 10:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            self.trainer.epoch(leave)
        binding = read_manifest(self.files.checkpoints).run
        assert binding is not None
        self.binding, self.state = binding, self.trainer.state()
        save_checkpoint(self.files.checkpoints, self.state, ("last", "best"), binding)
        self.last = self.files.checkpoints / "last.json"
        self.manifest, self.table = self.last.read_bytes(), json.loads(self.last.read_bytes())
        del self.table["manifest_sha256"]
        self.payload = (self.files.checkpoints / self.table["payload"]).read_bytes()
        self.environment_text = (folder / "environment.json").read_bytes()
        self.metrics_text = (folder / "metrics.jsonl").read_bytes()
        self.used: list[Path] = []

    def put_back(self) -> None:
        """Everything as the run wrote it."""
        for path in self.used:
            path.unlink(missing_ok=True)
        self.used.clear()
        self.last.write_bytes(self.manifest)
        (self.files.checkpoints / self.table["payload"]).write_bytes(self.payload)
        (self.files.path / "environment.json").write_bytes(self.environment_text)
        (self.files.path / "metrics.jsonl").write_bytes(self.metrics_text)

    def as_it_is(self, body: bytes) -> None:
        """The manifest."""
        self.last.write_bytes(body)

    def changed(self, body: bytes) -> None:
        """Some keys of the manifest, with the right digest."""
        table = _table(body)
        if table is not None:
            self._sign({**self.table, **table})

    def whole(self, body: bytes) -> None:
        """All keys of the manifest, with the right digest."""
        table = _table(body)
        if table is not None:
            self._sign(table)

    def payload_changed(self, body: bytes) -> None:
        """The payload, with the right digests."""
        self._sign(self._holding(body))

    def values_changed(self, body: bytes) -> None:
        """The values of the state, to which the payload is bound."""
        from fsp_dynamics.experiments.payload import write_payload

        values = _table(body)
        if values is None:
            return
        payload = write_payload(self.state.arrays, self.binding.digest(self.state.epoch, dict(values)))
        table = self._holding(payload)
        self._sign({**table, "rng": values.pop("rng", None), "values": values})

    def environment(self, body: bytes) -> None:
        """The file that holds the run's identity."""
        (self.files.path / "environment.json").write_bytes(body)

    def lines(self, body: bytes) -> None:
        """The records of the epochs."""
        (self.files.path / "metrics.jsonl").write_bytes(body)

    def restore(self) -> None:
        """Load and restore."""
        from fsp_dynamics.experiments.restoring import load_state

        self.files.metrics()
        state, _ = load_state(self.files, "last", self.config, note=lambda text: None)
        self.trainer.restore(state)

    def _holding(self, payload: bytes) -> dict[str, Any]:
        """The manifest of this payload, which is put in its place."""
        digest = hashlib.sha256(payload).hexdigest()
        name = f"epoch-{self.table['epoch']:05d}-{digest[:12]}.safetensors"
        path = self.files.checkpoints / name
        path.write_bytes(payload)
        self.used.append(path)
        return {**self.table, "payload": name, "bytes": len(payload), "sha256": digest}

    def _sign(self, table: dict[str, Any]) -> None:
        from fsp_dynamics.experiments import checkpoint

        table = {key: value for key, value in table.items() if key != "manifest_sha256"}
        with contextlib.suppress(RecursionError):
            self.last.write_bytes(checkpoint._text({**table, "manifest_sha256": checkpoint._digest(table)}))


def _table(body: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(body)
        return found if isinstance(found, dict) else None
    return None


TARGETS: dict[str, Callable[[Path], Target]] = {"idx": idx_target, "toml": toml_target, "manifest": manifest_target}


# One target, in a process of its own


def place_of(error: BaseException) -> str:
    """The type of an exception and where in the package it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "fsp_dynamics" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "outside"
    return f"{type(error).__name__} in {where}"


def guarded(target: Target, findings: Path) -> Callable[[bytes], None]:
    """What libFuzzer calls: findings are written down, one for each place, and the search goes
    on.
    """
    seen: set[str] = set()

    def one_input(data: bytes) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target.run(data)
        except target.allowed:
            return
        except Exception as error:
            place = place_of(error)
            if place not in seen:
                seen.add(place)
                number = len(seen)
                (findings / f"{number:03}.input").write_bytes(data)
                text = "".join(traceback.format_exception(error))
                (findings / f"{number:03}.txt").write_text(f"{place}\n\n{text}", encoding="utf-8", errors="replace")

    return one_input


def fuzz_here(name: str, home: Path, options: list[str]) -> None:
    """Fuzz a target until libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=list(FIRST_PARTS)):
        import fsp_dynamics.datasets
        import fsp_dynamics.experiments.checkpoint
        import fsp_dynamics.experiments.config_io  # noqa: F401
    target = TARGETS[name](home / "work")
    corpus, findings = home / "corpus", home / "findings"
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    dictionary = home / "words"
    dictionary.write_text("".join(f'"{word}"\n' for word in target.words), encoding="utf-8")
    given = [*options, f"-dict={dictionary}", f"-max_len={LONGEST[name]}", f"-artifact_prefix={findings}/"]
    atheris.Setup([sys.argv[0], *given, str(corpus)], guarded(target, findings))
    atheris.Fuzz()


# All of them


@dataclass(frozen=True, slots=True)
class Outcome:
    """What fuzzing of one target found."""

    name: str
    executions: int
    per_second: int
    coverage: int
    findings: tuple[str, ...]


def fuzz(name: str, home: Path, runs: int, seed: int) -> Outcome:
    """Fuzz a target in a process of its own, whose files lie in memory where that is possible."""
    shutil.rmtree(home / "findings", ignore_errors=True)
    for part in ("corpus", "findings"):
        (home / part).mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fsp-fuzz-", dir=memory if memory.is_dir() else None) as work:
        (home / "work").unlink(missing_ok=True)
        (home / "work").symlink_to(work)
        return _outcome(name, home, runs, seed)


def _outcome(name: str, home: Path, runs: int, seed: int) -> Outcome:
    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        f"-timeout={LIMIT}",
        f"-rss_limit_mb={MEMORY[name]}",
        "-close_fd_mask=0",
    ]
    words = [sys.executable, __file__, "--here", name, str(home), "--", *options, "-print_final_stats=1"]
    log = home / "log.txt"
    with log.open("wb") as said_to:
        settings = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
        done = subprocess.run(words, cwd=ROOT, env=settings, stdout=said_to, stderr=said_to, check=False)
    said = log.read_text(encoding="utf-8", errors="replace")
    numbers = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", said)}
    covered = [int(value) for value in re.findall(r"cov: (\d+)", said)]
    found = [path.read_text(encoding="utf-8").splitlines()[0] for path in sorted((home / "findings").glob("*.txt"))]
    found += [path.name for path in sorted((home / "findings").iterdir()) if path.suffix not in (".txt", ".input")]
    if done.returncode:
        found.append(f"libFuzzer ended with {done.returncode}: {log}")
    executed = numbers.get("number_of_executed_units", 0)
    return Outcome(name, executed, numbers.get("average_exec_per_sec", 0), max(covered, default=0), tuple(found))


@contextlib.contextmanager
def kept_or_not(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="fsp-fuzz-") as made:
        yield Path(made)


def main(words: list[str]) -> int:
    if words[:1] == ["--here"]:
        fuzz_here(words[1], Path(words[2]), words[4:])
    parser = argparse.ArgumentParser(description="Fuzz the readers of IDX, TOML and checkpoints.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; all of them by default")
    parser.add_argument("--runs", type=int, help="executions of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for corpora and findings")
    given = parser.parse_args(words)
    unknown = [name for name in given.targets if name not in NAMES]
    if unknown:
        parser.error(f"{unknown[0]!r} is no target; expected some of {', '.join(NAMES)}")
    try:
        import atheris  # noqa: F401
    except ModuleNotFoundError:
        print("fuzzing needs atheris: pip install 'fsp_dynamics[fuzz]'", file=sys.stderr)
        return 2
    outcomes = []
    with kept_or_not(given.keep) as folder:
        for name in given.targets or NAMES:
            outcome = fuzz(name, folder / name, given.runs or RUNS[name], given.seed)
            outcomes.append(outcome)
            print(f"{name}: {outcome.executions:,} executions, {outcome.per_second:,} a second, ", end="")
            print(f"{outcome.coverage:,} edges covered, {len(outcome.findings)} findings", flush=True)
            for finding in outcome.findings:
                print(f"  {finding}", flush=True)
    print(f"{sum(outcome.executions for outcome in outcomes):,} executions in all")
    return 1 if any(outcome.findings for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
