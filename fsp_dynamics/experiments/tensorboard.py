"""Event files of TensorBoard, written epoch by epoch by the library tensorboardX, which needs
neither TensorBoard nor TensorFlow (``pip install 'fsp_dynamics[tensorboard]'``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.folders import expanded

FLUSH = 5  # seconds until what was written is on the disk
GROUPS = {
    **{f"{part}_error": f"error/{part}" for part in ("train", "valid", "test")},
    **{f"raw_{part}_error": f"error/raw_{part}" for part in ("valid", "test")},
    **{"residual": "convergence/residual", "unconverged": "convergence/unconverged"},
    **{"loop_norm": "loop/gain", "loop_norm_max": "loop/largest_gain", "images_per_second": "speed/images_per_second"},
}
"""{field of a record: tag}; alignment_degrees become angle/NAME."""


class TensorBoard:
    """A callback of `train` that writes the numbers of each epoch into an event file in `folder`:
    errors, angles, residual, unconverged samples, gains and images per second, by epoch. A run that
    is resumed writes all its epochs again, in place of what TensorBoard has of them.

    Raises ConfigurationError where tensorboardX is not installed.

    >>> fsp.train("digits", callbacks=[TensorBoard("events/a")])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.first = expanded(folder, "tensorboard"), True
        self.writer: Any = None
        _library()

    def __repr__(self) -> str:
        return f"<TensorBoard: {self.folder}>"

    def __call__(self, record: Mapping[str, Any], network: Any, /) -> None:
        self._write([record])

    def replay(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the finished epochs of a run that is resumed."""
        self._write(records)

    def close(self) -> None:
        """Write what waits to be written, which happens a few seconds after each epoch, and at the
        end of the process, without it too.
        """
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _write(self, records: Sequence[Mapping[str, Any]]) -> None:
        if self.writer is None:  # by then the run has begun
            start = {"purge_step": 1} if self.first else {}
            self.writer, self.first = _library().SummaryWriter(str(self.folder), flush_secs=FLUSH, **start), False
        for record in records:
            for tag, value in scalars(record).items():
                self.writer.add_scalar(tag, value, record["epoch"])


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """{tag: number} of the record of an epoch; what is missing in it is left out."""
    found = {tag: record.get(key) for key, tag in GROUPS.items()}
    found |= {f"angle/{name}": value for name, value in (record.get("alignment_degrees") or {}).items()}
    return {tag: float(value) for tag, value in found.items() if value is not None}


def _library() -> Any:
    try:
        import tensorboardX
    except ImportError:
        raise ConfigurationError(
            "event files for TensorBoard are written by tensorboardX, which is not installed; "
            "pip install 'fsp_dynamics[tensorboard]', or leave tensorboard out"
        ) from None
    return tensorboardX
