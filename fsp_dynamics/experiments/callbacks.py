"""What may be done after each epoch of a run, and what ends it before its last epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fsp_dynamics.errors import ConfigurationError, is_whole

Record = Mapping[str, Any]


class StopTraining(Exception):
    """Raised by a callback to end the run after this epoch, as finished early; its text is the
    reason that the run reports.

    >>> import fsp_dynamics as fsp
    >>> def enough(record, network):
    ...     if record["epoch"] == 2:
    ...         raise fsp.StopTraining("two epochs are enough")
    >>> given = {"data": {"limit": 40}, "callbacks": [enough], "progress": False}
    >>> len(fsp.train("digits", epochs=9, out="runs/a", **given).metrics)
    2
    """


class Callback(Protocol):
    """Called once an epoch, after its metrics and its checkpoint were written.

    record : the epoch's metrics, as metrics.jsonl holds them. network : the network after the
    epoch (a `Network` for the default family).

    Returning False, or raising `StopTraining`, ends the run as finished early; None and True let
    it go on. An object that has ``replay(records)`` as well is given the records of the finished
    epochs when a run is resumed; what `replay` returns or raises counts as that of the last call.

    >>> import fsp_dynamics as fsp
    >>> seen = []
    >>> def note(record, network):
    ...     seen.append(record["train_error"])
    >>> run = fsp.train("digits", epochs=2, data={"limit": 40}, callbacks=[note], progress=False)
    >>> seen == [record["train_error"] for record in run.metrics]
    True
    """

    def __call__(self, record: Record, network: Any, /) -> bool | None: ...


class EarlyStopping:
    """Ends the run once `metric` has not fallen below its best value for `patience` epochs in a
    row.

    With the best value in epoch b, the run ends after epoch b + patience. The checkpoint called
    "best" holds the network of epoch b, if the metric is the validation error. A resumed run ends
    where the uninterrupted one would have.

    Raises ConfigurationError unless patience is a whole number, 1 or more; on the first call for a
    metric that the epochs do not have, such as the validation error without validation images.

    >>> stop = EarlyStopping(patience=2)
    >>> [stop({"epoch": n, "valid_error": e}, None) for n, e in enumerate([5.0, 4.0, 4.0], 1)]
    [True, True, True]
    >>> stop({"epoch": 4, "valid_error": 4.5}, None)
    Traceback (most recent call last):
    ...
    fsp_dynamics.experiments.callbacks.StopTraining: valid_error has not fallen below 4 since ...
    """

    def __init__(self, patience: int, metric: str = "valid_error") -> None:
        if not is_whole(patience, 1):
            raise ConfigurationError(f"patience = {patience!r}, expected a whole number of epochs, 1 or more")
        self.patience, self.metric = int(patience), metric
        self.best: tuple[float, int] | None = None  # the lowest value and its epoch

    def __repr__(self) -> str:
        return f"<EarlyStopping: {self.metric}, patience {self.patience}>"

    def __call__(self, record: Record, network: Any, /) -> bool:
        value, epoch = record.get(self.metric), record["epoch"]
        if value is None:
            hint = "; give validation images (data.validation)" if self.metric == "valid_error" else ""
            raise ConfigurationError(
                f"patience needs the metric {self.metric}, which epoch {epoch} does not have{hint}"
            )
        if self.best is None or value < self.best[0]:
            self.best = (value, epoch)
        if epoch - self.best[1] >= self.patience:
            raise StopTraining(
                f"{self.metric} has not fallen below {self.best[0]:g} since epoch {self.best[1]} "
                f"(patience {self.patience})"
            )
        return True

    def replay(self, records: Sequence[Record]) -> bool:
        """Go through the records of finished epochs, as if called after each; what the last call
        returns or raises is returned or raised.

        Returns
        -------
        bool : True, to go on.

        >>> EarlyStopping(patience=2).replay([{"epoch": 1, "valid_error": 5.0}])
        True
        """
        self.best = None
        for record in records[:-1]:
            try:
                self(record, None)
            except StopTraining:  # the run went on nevertheless
                continue
        return self(records[-1], None) if records else True


class Callbacks:
    """The callbacks of one run, called in turn."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        if callable(callbacks):
            raise ConfigurationError(f"callbacks = {callbacks!r}, expected a list; give callbacks=[...]")
        self.callbacks = tuple(callbacks)
        for callback in self.callbacks:
            if not callable(callback):
                raise ConfigurationError(
                    f"callbacks holds {callback!r}, expected functions of an epoch's record and the network"
                )

    def after_epoch(self, record: Record, network: Any) -> str | None:
        """Call them all; the reason to end the run, or None. Each is called even if one before it
        has asked for the end.
        """
        reasons = [_asked(callback, record, network) for callback in self.callbacks]
        return "; ".join(filter(None, reasons)) or None

    def resumed(self, records: Sequence[Record]) -> str | None:
        """Give those that have `replay` the finished epochs; the reason to end, or None."""
        replays = [callback.replay for callback in self.callbacks if hasattr(callback, "replay")]
        reasons = [_asked(replay, records) for replay in replays if records]
        return "; ".join(filter(None, reasons)) or None


def _asked(callback: Any, *arguments: Any) -> str | None:
    """The reason a callback gives for the end of the run, or None."""
    name = getattr(callback, "__qualname__", None) or repr(callback)
    try:
        answer = callback(*arguments)
    except StopTraining as stop:
        return str(stop) or f"{name} asked for it"
    if answer is None or isinstance(answer, bool | np.bool_):
        return f"{name} returned False" if answer is not None and not answer else None
    raise ConfigurationError(f"the callback {name} returned {answer!r}, expected None, True, or False to end the run")
