"""Records of a run, read back: metrics.jsonl, probes.jsonl, environment.json, summary.json. Each
field of them that the package uses is what it must be, or the file, the line and the field are
named.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsp_dynamics.datasets.formats import is_image_shape
from fsp_dynamics.errors import CheckpointError
from fsp_dynamics.experiments import former_names
from fsp_dynamics.experiments.config import flatten
from fsp_dynamics.reading import MEGABYTE, open_file, parse_json, read_file

Record = dict[str, Any]
LONGEST = 256 * MEGABYTE
"""Bytes of a file of records; of one JSON file a sixteenth."""
METRICS, PROBES = "metrics.jsonl", "probes.jsonl"
ANGLE = "angle_"
"""How the name of a matrix's angle begins, wherever results are shown: angle_W1, angle_loop."""
REMEDY = "the file is damaged, restore it or train again"

Check = tuple[Callable[[Any], bool], str]
"""(whether the value is right, what is expected)"""


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _table_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_spikes(value: Any) -> bool:
    """As `layerwise.spiking.spikes_record` writes it."""
    if not isinstance(value, dict) or not _table_of(_table_of(lambda each: _is_number(each, 0)))(value.get("layers")):
        return False
    counts = [value.get("images"), value.get("multiply_adds")]
    counts += [own.get(key) for own in value["layers"].values() for key in ("units", "silent", "saturated")]
    return all(map(_is_count, counts))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_ERROR: Check = (_or_none(lambda value: _is_number(value, 0, 100)), "percent from 0 to 100")
_POSITIVE: Check = (_or_none(lambda value: _is_number(value, 0)), "a number, 0 or more")
_ANGLES: Check = (_table_of(_or_none(lambda value: _is_number(value, 0, 180))), "a table of degrees from 0 to 180")
_COUNT: Check = (_or_none(_is_count), "a whole number, 0 or more")
_TABLE: Check = (lambda value: isinstance(value, dict), "a table")
_TEXT: Check = (_or_none(_is_text), "a text")
FIELDS: dict[str, Check] = {
    **dict.fromkeys(("train_error", "valid_error", "test_error", "raw_valid_error", "raw_test_error"), _ERROR),
    **dict.fromkeys(("unconverged", "valid_unconverged", "test_unconverged"), _COUNT),
    **dict.fromkeys(
        ("residual", "residual_max", "passes_free", "passes_nudged", "loop_norm", "loop_norm_max"), _POSITIVE
    ),
    **dict.fromkeys(("seconds", "images_per_second"), (lambda value: _is_number(value, 0), "a number, 0 or more")),
    "nudged_share": (_or_none(lambda value: _is_number(value, 0, 1)), "a number from 0 to 1"),
    "alignment_degrees": _ANGLES,
    "dead_outputs": (_list_of(_is_count), "a list of outputs"),
    "saturation": (
        _table_of(lambda value: isinstance(value, list) and all(_is_number(each, 0, 1) for each in value)),
        "a table of two shares for each layer",
    ),
    "exit_errors": (_table_of(_table_of(_ERROR[0])), "a table of percents for each part of the data"),
    "spikes": (_is_spikes, "a table of images, multiply_adds and the numbers of each layer"),
    "stuck_units": (_table_of(_list_of(_is_count)), "a table of two counts for each hidden layer"),
}
"""What the fields of metrics.jsonl must be, for every family that has them."""
PARTS: dict[str, Check] = {
    "converged": _COUNT,
    **dict.fromkeys(("alignment", "samples", "gradient", "stability"), _TABLE),
}
"""What the fields of probes.jsonl must be; numbers within them are finite, as all JSON is."""
ENVIRONMENT: dict[str, Check] = {
    **dict.fromkeys(("command", "started", "commit", "platform", "cpu", "backend"), _TEXT),
    "arguments": (_list_of(_is_text), "a list of texts"),
    "seed": (lambda value: type(value) is int and value >= 0, "a whole number, 0 or more"),
    "cores": _COUNT,
    "processes": _COUNT,
    "versions": (_table_of(_or_none(_is_text)), "a table of texts"),
    "threads": (_table_of(_is_count), "a table of whole numbers"),
    "data": (_table_of(_is_text), "a table of texts"),
    "images": (
        lambda value: (
            isinstance(value, dict)
            and _list_of(_is_count)(value.get("shape"))
            and is_image_shape(value["shape"])
            and _is_count(value.get("top"))
            and value["top"] > 0
            and _list_of(_is_text)(value.get("class_names"))
        ),
        "a table of shape, top and class_names",
    ),
    "resumed": (_list_of(lambda value: isinstance(value, dict)), "a list of tables"),
    "identity": (
        lambda value: _is_text(value) and re.fullmatch(r"[0-9a-f]{32}", value) is not None,
        "32 hexadecimal digits",
    ),
    "unbound_until": _COUNT,
    "config_sha256": (lambda value: _is_text(value) and len(value) == 64, "64 hexadecimal digits"),
}
SUMMARY: dict[str, Check] = {
    **dict.fromkeys(("status", "reason"), _TEXT),
    "epochs": _COUNT,
    "epochs_asked": _COUNT,
    "seconds": _POSITIVE,
    **dict.fromkeys(("best", "last"), (_or_none(lambda value: isinstance(value, dict)), "a table")),
}


def read_lines(path: Path, *, epochs: bool) -> list[Record]:
    """The records of a file, one a line; what follows the last line end was cut short. epochs : one
    for each epoch from 1 on (metrics), else in the order of epochs, fractions included (probes).

    Raises CheckpointError: file, line, field. A file that is missing has no records.
    """
    try:
        content = read_file(path, LONGEST)
    except FileNotFoundError:
        return []
    records: list[Record] = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        where = f"{path}:{number}"
        try:
            record = parse_json(line, finite=False)
            epoch = record["epoch"]
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(f"{where} is no record of an epoch; {REMEDY}") from None
        if epochs:
            whole, expected = type(epoch) is int and epoch == number, f"{number}"
        else:
            before = records[-1]["epoch"] if records else 0
            whole, expected = _is_number(epoch, before, 1e9), f"a number from {before} on"
        if not whole:
            raise CheckpointError(f"{where}: epoch is {_shown(epoch)}, expected {expected}; {REMEDY}")
        records.append(checked(former_names.record(record), FIELDS if epochs else PARTS, where))
    return records


def read_table(path: Path, checks: dict[str, Check]) -> Record:
    """A JSON file of one table, its fields checked; {} if it is missing. Raises CheckpointError."""
    try:
        found = parse_json(read_file(path, LONGEST // 16))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not JSON ({error}); {REMEDY}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds {_shown(found)}, expected a table; {REMEDY}")
    return checked(found, checks, str(path))


def checked(record: Record, checks: dict[str, Check], where: str) -> Record:
    """The record, if its fields are right. Raises CheckpointError."""
    for key, value in record.items():
        right, expected = checks.get(key, (lambda _: True, ""))
        if not right(value):
            raise CheckpointError(f"{where}: {key} is {_shown(value)}, expected {expected}; {REMEDY}")
        if not _is_finite(value):
            raise CheckpointError(f"{where}: {key} holds a number that is not finite; {REMEDY}")
    return record


def mark(path: Path) -> list[Any]:
    """[bytes, SHA-256] of a file as it is now; of none, as of an empty one."""
    digest, size = hashlib.sha256(), 0
    try:
        with open_file(path) as file:
            while part := file.read(MEGABYTE):
                digest.update(part)
                size += len(part)
    except FileNotFoundError:
        pass
    return [size, digest.hexdigest()]


def require_marked(path: Path, content: bytes, marked: list[Any]) -> bytes:
    """The part of the content that was marked. Raises CheckpointError if it is another now."""
    size, digest = marked
    part = content[:size]
    if len(part) != size or hashlib.sha256(part).hexdigest() != digest:
        raise CheckpointError(
            f"{path} is not as it was when the checkpoint was saved (its first {size} bytes); {REMEDY}"
        )
    return part


def _is_finite(value: Any) -> bool:
    """Numbers such as 1e999 are no numbers of JSON that can be kept."""
    if isinstance(value, (dict, list)):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, (dict, list)) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def lines(found: list[Record]) -> bytes:
    """The records as a file holds them, a line of JSON each."""
    return b"".join(json.dumps(plain(record), allow_nan=False).encode() + b"\n" for record in found)


def best_of(metrics: list[Record]) -> Record | None:
    """The epoch with the lowest validation error (the first of equals); the last one where there
    are no validation images.
    """
    judged = [record for record in metrics if record.get("valid_error") is not None]
    if judged:
        return min(judged, key=lambda record: record["valid_error"])
    return metrics[-1] if metrics else None


def commits_of(environment: Record) -> list[str]:
    """The commits of the code that a run was trained with, first to last, from its
    environment.json; + for a changed tree, "unknown" where none was recorded.
    """
    parts = [environment, *environment.get("resumed", [])]
    return list(dict.fromkeys(str(part.get("commit") or "unknown") for part in parts))


def flat(record: Record) -> Record:
    """The record as one row of a table: {dotted key: value}, items of lists by their index
    (saturation.output.0), dead outputs as one text.
    """
    row: Record = {}
    for key, value in flatten(record).items():
        if key == "dead_outputs":
            row[key] = " ".join(map(str, value))
        elif isinstance(value, list):
            row |= {f"{key}.{place}": item for place, item in enumerate(value)}
        else:
            row[key] = value
    return row


def plain(value: Any) -> Any:
    """The value as JSON can hold it: NumPy's numbers as Python's, arrays and tuples as lists,
    numbers that are not finite as null.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
