"""How a stopped run is taken up again: its folder brought back to its last checkpoint, and the
trainer with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.binding import ELSEWHERE, without
from fsp_dynamics.experiments.checkpoint import Manifest, has_checkpoint, latest
from fsp_dynamics.experiments.config import Config, format_differences
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.progress import EpochReporter
from fsp_dynamics.experiments.restoring import load_state, read_bound
from fsp_dynamics.experiments.trainer import Trainer, TrainingState


def check(config: Config, folder: RunFolder, allow: Sequence[str], note: Callable[[str], None]) -> None:
    """Refuse to resume a run under another configuration, or with checkpoints that are not its own,
    before anything is loaded or compiled. note : is told what is odd. Raises as `resume`.
    """
    _check_same(folder, config, allow)
    if not has_checkpoint(folder.checkpoints):
        return
    told: list[str] = []
    manifest, _ = read_bound(folder, latest(folder.checkpoints), config, allow=allow, note=told.append)
    if has_checkpoint(folder.checkpoints, "best"):
        read_bound(folder, "best", config, allow=allow, note=told.append)
    elif manifest.epoch:
        told.append(f"{folder.checkpoints / 'best.json'} is lost: there is no best network until an epoch is better")
    for text in dict.fromkeys(told):
        note(text)


def resume(
    config: Config,
    folder: RunFolder,
    trainer: Trainer,
    data: Dataset,
    reporter: EpochReporter,
    now: Record,
    *,
    allow: Sequence[str] = (),
) -> list[Record]:
    """Bring the trainer where the run stopped and return the metrics so far; `now` is the
    environment. allow : keys of the configuration that may differ.
    """
    changed, before = _check_same(folder, config, allow), folder.environment()
    found = restore(config, folder, trainer, data, allow=allow)
    if found is None:
        return folder.start_again()
    saved, manifest = found
    metrics = folder.rewind(saved.epoch, None if manifest.run is None else manifest.run.records)
    elsewhere = execution.changed_environment(before, now)
    if elsewhere:
        reporter.note(
            "this is not the environment the run began in; the last bits may differ: " + format_differences(elsewhere)
        )
    if manifest.run is not None:
        changed |= manifest.run.differences(config)
    if changed:
        reporter.note(f"changed after epoch {saved.epoch}, as allowed: {format_differences(changed)}")
    again = {**now, "epoch": saved.epoch, **({"allowed": changed} if changed else {})}
    unbound = {} if manifest.run is not None else {"unbound_until": saved.epoch}
    images = {"images": data.format.as_record()}  # of which runs of before did not record the format
    folder.adopt(config, {**images, **before, **unbound, "resumed": [*before.get("resumed", []), again]})
    return metrics


def restore(
    config: Config, folder: RunFolder, trainer: Trainer, data: Dataset, *, allow: Sequence[str] = ()
) -> tuple[TrainingState, Manifest] | None:
    """Bring the trainer where the run stopped, and change nothing in its folder: the state, with
    its manifest; None where none was saved. Raises as `resume`.
    """
    _check_same(folder, config, allow)
    before = folder.environment()
    if before.get("data"):  # runs of before did not record what they read
        data.check_fingerprint(before["data"])
    if not has_checkpoint(folder.checkpoints):
        return None
    saved, manifest = load_state(folder, latest(folder.checkpoints), config, allow=allow, note=lambda text: None)
    if config.learning.epochs < saved.epoch:
        raise ConfigurationError(
            f"learning.epochs = {config.learning.epochs}, but {folder.path} has finished {saved.epoch}; "
            "ask for as many or more"
        )
    trainer.restore(saved)
    return saved, manifest


def _check_same(folder: RunFolder, config: Config, allow: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """{key: (before, now)} of what differs from the configuration of the folder, and may. Raises
    ConfigurationError.
    """
    # where the images lie may change: which images they are is checked by their digests
    differing = {key: pair for key, pair in folder.config().differences(config).items() if key != ELSEWHERE}
    refused = without(differing, allow)
    if refused:
        raise ConfigurationError(
            f"{folder.path} was begun with another configuration: {format_differences(refused)}; "
            f"resume with the same one, allow the change (allow={[*refused]}), "
            "or give another folder (out=...)"
        )
    return differing
