"""How a stopped run is taken up again: its folder brought back to its last checkpoint, and the
trainer with it.
"""

from __future__ import annotations

from fsp_dynamics.datasets import Dataset
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.experiments import execution
from fsp_dynamics.experiments.checkpoint import has_checkpoint, load_checkpoint
from fsp_dynamics.experiments.config import Config, format_differences
from fsp_dynamics.experiments.folder import Record, RunFolder
from fsp_dynamics.experiments.progress import EpochReporter
from fsp_dynamics.experiments.trainer import Trainer


def resume(
    config: Config, folder: RunFolder, trainer: Trainer, data: Dataset, reporter: EpochReporter, now: Record
) -> list[Record]:
    """Bring the trainer where the run stopped and return the metrics so far; `now` is the
    environment.
    """
    _check_same(folder, config)
    recorded = folder.read_json("environment.json").get("data")
    if recorded:  # runs of before did not record what they read
        data.check_fingerprint(recorded)
    if not has_checkpoint(folder.checkpoints):
        return folder.rewind(0)
    saved = load_checkpoint(folder.checkpoints)
    if config.learning.epochs < saved.epoch:
        raise ConfigurationError(
            f"learning.epochs = {config.learning.epochs}, but {folder.path} has finished {saved.epoch}; "
            "ask for as many or more"
        )
    metrics = folder.rewind(saved.epoch)
    trainer.restore(saved)
    before = folder.read_json("environment.json")
    changed = execution.changed_environment(before, now)
    if changed:
        reporter.note(
            "this is not the environment the run began in; the last bits may differ: " + format_differences(changed)
        )
    folder.write_json(
        "environment.json", {**before, "resumed": [*before.get("resumed", []), {**now, "epoch": saved.epoch}]}
    )
    folder.write_config(config)
    return metrics


def _check_same(folder: RunFolder, config: Config) -> None:
    # where the images lie may change: which images they are is checked by their digests
    differing = {key: pair for key, pair in folder.config().differences(config).items() if key != "data.path"}
    if differing:
        raise ConfigurationError(
            f"{folder.path} was begun with another configuration: {format_differences(differing)}; "
            "resume with the same one, or give another folder (out=...)"
        )
