"""Replies to the messages of the script: a frame, a piece of a sweep, a file, or a one-line error.

The script has at most one request open and keeps only the newest parameters, so no queue builds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fsp_dynamics.errors import FspError
from fsp_dynamics.explorer.frame import Frame
from fsp_dynamics.explorer.model import Model

KINDS = ("frame", "sweep", "learn", "forget", "next", "netcdf")


def respond(model: Model, content: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """(content, buffers) of the reply to one message. Errors are returned as one line and never
    raised, since the page waits for a reply.
    """
    head = {"kind": content.get("kind"), "id": content.get("id")}
    try:
        if head["kind"] not in KINDS:
            raise ValueError(f"message of kind {head['kind']!r}, expected one of: {', '.join(KINDS)}")
        given = content["parameters"]
        if head["kind"] == "netcdf":
            return {**head, "name": "path.nc"}, [bytes(model.path(given).to_xarray().to_netcdf())]
        if head["kind"] == "sweep":
            return _packed(
                head | {"name": content["name"], "piece": content["piece"]},
                model.sweep(given, content["name"], content["piece"]),
            )
        if head["kind"] == "learn":
            model.learn(given)
        elif head["kind"] == "forget":
            model.forget(given)
        elif head["kind"] == "next":
            given = model.next_informative(given)
        return _packed(head | {"kind": "frame"}, model.frame(given))
    except FspError as error:
        return head | {"kind": "refused", "text": " ".join(str(error).split())}, []
    except Exception as error:
        return head | {
            "kind": "refused",
            "text": f"internal error, {type(error).__name__}: {error}; please report it",
        }, []


def _packed(head: dict[str, Any], frame: Frame) -> tuple[dict[str, Any], list[bytes]]:
    """A frame as the script expects it; the readouts of a sweep are next to its layout."""
    readouts = frame.readouts if "pieces" in frame.readouts else {"readouts": frame.readouts}
    return {**head, "layout": frame.layout, **readouts}, [frame.buffer]
