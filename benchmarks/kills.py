"""Whether a run that is killed, again and again, ends as one that never was.

python -m benchmarks.kills --kills 200 --out kills
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TIMES = {"seconds", "images_per_second", "started"}
# of environment.json: how often and how a run was taken up says nothing of its result
HISTORY = {"resumed", "command", "arguments"}
# of a run folder, and what follows from it or from times
IDENTITY = {"identity", "records", "manifest_sha256"}
IGNORED = TIMES | HISTORY | IDENTITY


def differences(one: Path, other: Path) -> list[str]:
    """What distinguishes two run folders beside times and the history of their sessions, a line
    each; files that are no text byte by byte.
    """
    here, there = (_files(folder) for folder in (one, other))
    found = [f"only in {one if name in here else other}: {name}" for name in sorted(here ^ there)]
    for name in sorted(here & there):
        first, second = (_content(folder / name) for folder in (one, other))
        if first != second:
            found.append(f"{name} differs: {_first_difference(first, second)}")
    return found


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def _content(path: Path) -> Any:
    """Bytes, or records without what may differ."""
    content = path.read_bytes()
    if path.suffix == ".json":
        return _timeless(json.loads(content))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in content.splitlines()]
    return content


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in IGNORED}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _first_difference(one: Any, other: Any) -> str:
    if isinstance(one, bytes):
        return f"{len(one)} and {len(other)} bytes"
    if isinstance(one, list):
        pairs = [f"{a} and {b}" for a, b in zip(one, other, strict=False) if a != b]
        return pairs[0][:200] if pairs else f"{len(one)} and {len(other)} records"
    return ", ".join(
        f"{key}: {one.get(key)} and {other.get(key)}" for key in one | other if one.get(key) != other.get(key)
    )[:200]
