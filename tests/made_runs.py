"""Run folders written by hand: the files of a finished run, with numbers that a test knows."""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import Any

from fsp_dynamics.experiments.config_io import load_config, to_toml
from fsp_dynamics.experiments.folder import RunFolder

COMMIT = "0123456789ab"


def made_run(
    folder: Path,
    preset: str = "digits",
    seed: int = 0,
    *,
    test: float = 4.0,
    status: str = "finished",
    done: int | None = None,
    last: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """The folder of a run of that preset whose best epoch, the last but one, has the test error
    `test`, the validation error test - 0.5 and the training error test - 1.

    done : epochs, if not all. last : more fields of every epoch's record. more : of
    environment.json. changes : of the configuration.
    """
    _, config = load_config(preset, {**changes, "seed": seed})
    done = config.learning.epochs if done is None else done
    metrics = []
    for epoch in range(1, done + 1):
        worse = 0.0 if epoch == done - 1 else 0.25
        metrics.append(
            {
                "epoch": epoch,
                "train_error": test - 1 - 0.5 * (epoch == done),
                "valid_error": test - 0.5 + worse,
                "test_error": test + worse,
                "unconverged": 2,
                "valid_unconverged": 1,
                "test_unconverged": 0,
                "dead_outputs": [3] if epoch == done else [],
                "seconds": 6.0,
                "alignment_degrees": {"W1": 80.0 - 20 * epoch / config.learning.epochs, "loop": 60.0},
                **(last or {}),
            }
        )
    folder.mkdir(parents=True)
    files = RunFolder(folder)
    files.write_json(
        "environment.json",
        {
            "identity": uuid.uuid4().hex,
            "seed": seed,
            "started": "2026-11-30T10:00:00+00:00",
            "commit": COMMIT,
            "cpu": "Some CPU",
            "cores": 2,
            "processes": 1,
            "backend": "numba",
            "threads": {"openblas": 1, "numba": 2},
            "versions": {"python": "3.11.7"},
            "data": {"images": "a" * 64},
            **(more or {}),
        },
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    best = min(metrics, key=lambda record: record["valid_error"]) if metrics else None
    summary = {"status": status, "epochs": done, "best": best, "last": metrics[-1] if metrics else None}
    files.write_json("summary.json", summary)
    (folder / "config.toml").write_text(to_toml(config))
    return folder


def slow_interval(values: list[float]) -> tuple[float, float, float]:
    """(mean, lower and upper end of its 95 % interval): the quantile of Student's t found by
    bisection of the integral of its density.
    """
    n = len(values)
    mean = sum(values) / n
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    nu = n - 1
    scale = math.gamma((nu + 1) / 2) / math.sqrt(nu * math.pi) / math.gamma(nu / 2)

    def share(t: float, steps: int = 4000) -> float:
        """Of the distribution between -t and t, by Simpson's rule."""
        width = t / steps
        heights = [scale * (1 + (k * width) ** 2 / nu) ** (-(nu + 1) / 2) for k in range(steps + 1)]
        return 2 * width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))

    low, high = 0.0, 20.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) < 0.95 else (low, middle)
    half = low * deviation / math.sqrt(n)
    return mean, mean - half, mean + half
