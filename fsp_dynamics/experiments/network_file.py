"""One network in one file: safetensors, with all that is no array in its metadata.

Metadata, as text: ``format``, ``topology`` (loop, tied, reciprocal, feedforward),
``time_constants`` (JSON), ``rho`` (a name, or the import path of an activation of one's own), and
``sha256`` of everything else. Any safetensors reader opens the arrays, under the names of
`Network.parameters`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from fsp_dynamics.errors import CheckpointError, ConfigurationError, FspError, NotAFileError
from fsp_dynamics.experiments.import_path import import_object, import_path_of, is_import_path
from fsp_dynamics.experiments.payload import check_arrays, read_metadata, read_whole
from fsp_dynamics.folders import expanded
from fsp_dynamics.models.activations import ACTIVATIONS, Activation
from fsp_dynamics.models.network import Array, Network
from fsp_dynamics.reading import parse_json
from fsp_dynamics.writing import write_aside

FORMAT = "fsp_dynamics.network/1"
FIELDS = ("format", "topology", "time_constants", "rho")
TOPOLOGIES = ("loop", "tied", "reciprocal", "feedforward")
MATRIX = re.compile(r"(forward|backward|biases)\[(\d{1,4})\]")


def save_network(path: str | Path, network: Network) -> Path:
    """Write the network to a file, whole or not at all; folders that are missing are made.

    An activation of one's own is saved as its import path, so it must be defined at the top of a
    module that can be imported.

    Raises NotFiniteError for NaN, infinity and numbers beyond `payload.LARGEST` in the weights,
    ConfigurationError for an activation without an import path, both before anything is written;
    OSError if the disk refuses.

    Returns
    -------
    Path : of the file.

    >>> import fsp_dynamics as fsp
    >>> fsp.save_network("networks/a.safetensors", fsp.loop_network([4, 8, 3], rng=0)).name
    'a.safetensors'
    """
    if not isinstance(network, Network):
        raise ConfigurationError(
            f"network is of type {type(network).__name__}, expected a Network; the path comes first: "
            "save_network(path, network)"
        )
    path = expanded(path, "path")
    arrays = {name: np.ascontiguousarray(array) for name, array in network.parameters().items()}
    check_arrays(arrays, "; the network is not saved")
    fields = {
        "format": FORMAT,
        "topology": _topology(network),
        "time_constants": json.dumps(network.time_constants),
        "rho": rho_text(network.rho),
    }
    content = safetensors.numpy.save(arrays, metadata=fields | {"sha256": _digest(fields, arrays)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, content)
    return path


def load_network(path: str | Path, *, allow_import: Sequence[str] = ()) -> Network:
    """The network that `save_network` wrote, verified.

    allow_import : modules from which an activation that the file names may be imported.

    Raises CheckpointError for a file that is missing, damaged, or no network; NotFiniteError for
    weights that are not finite or beyond `payload.LARGEST`; NotAFileError for a pipe or a device;
    ConfigurationError for an activation that is not allowed or not found.

    Returns
    -------
    Network : the same bits.

    >>> import fsp_dynamics as fsp
    >>> network = fsp.loop_network([4, 8, 3], rng=0)
    >>> path = fsp.save_network("a.safetensors", network)
    >>> bool((fsp.load_network(path).loop == network.loop).all())
    True
    """
    path = expanded(path, "path")
    fields, arrays = _read(path)
    rho = rho_of(fields["rho"], allow_import, field=f"{path}: rho")
    groups: dict[str, dict[int, Array]] = {"forward": {}, "backward": {}, "biases": {}}
    for name, array in arrays.items():
        if match := MATRIX.fullmatch(name):
            groups[match[1]][int(match[2])] = array
    forward, backward, biases = (tuple(w for _, w in sorted(group.items())) for group in groups.values())
    try:
        network = Network(
            arrays["input"],
            forward,
            biases,
            loop=arrays.get("loop"),
            backward=backward or None,
            tied=fields["topology"] == "tied",
            time_constants=tuple(parse_json(fields["time_constants"])),
            rho=rho,
        )
        whole = set(network.parameters()) == set(arrays) and _topology(network) == fields["topology"]
    except (FspError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not hold a network ({error}); save it again with save_network") from error
    if not whole:
        raise CheckpointError(f"{path} holds other arrays than a network of topology {fields['topology']} has")
    return network


def rho_text(rho: Activation) -> str:
    """How a file names an activation: by its name, or by the import path of one's own. Raises
    ConfigurationError where it has none.
    """
    return rho.name if ACTIVATIONS.get(rho.name) == rho else import_path_of(rho)


def rho_of(text: str, allow_import: Sequence[str] | None = (), *, field: str = "rho") -> Activation:
    """The activation of that name or import path; modules as for `import_object`. Raises
    ConfigurationError.
    """
    if not is_import_path(text):
        if text not in ACTIVATIONS:
            raise ConfigurationError(
                f"{field} = {text!r}, expected one of {', '.join(ACTIVATIONS)} or package.module:name"
            )
        return ACTIVATIONS[text]
    found = import_object(text, allow_import, field=field)
    if not isinstance(found, Activation):
        raise ConfigurationError(f"{field} = {text!r} is of type {type(found).__name__}, expected an Activation")
    return found


def _topology(network: Network) -> str:
    if network.tied:
        return "tied"
    return "loop" if network.loop is not None else "feedforward" if network.backward is None else "reciprocal"


def _digest(fields: Mapping[str, str], arrays: Mapping[str, Array]) -> str:
    """SHA-256 of the fields and of every array's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps([fields[name] for name in FIELDS]).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Array]]:
    """The verified metadata and arrays. Raises CheckpointError."""
    remedy = "give a file that save_network wrote"
    try:
        content = read_whole(path, remedy, follow=True)
    except FileNotFoundError:
        raise CheckpointError(f"the network is missing: no file {path}") from None
    except OSError as error:
        if isinstance(error, NotAFileError):
            raise
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    try:
        fields = read_metadata(content)
        arrays = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or damaged ({error}); {remedy}") from error
    if fields.get("format") != FORMAT:
        raise CheckpointError(f"{path} has the format {fields.get('format')!r}, expected {FORMAT!r}; {remedy}")
    lacking = [name for name in (*FIELDS, "sha256") if name not in fields]
    if lacking or fields["topology"] not in TOPOLOGIES:
        wrong = f"lacks {lacking[0]}" if lacking else f"has the topology {fields['topology']!r}"
        raise CheckpointError(f"{path} {wrong}: it is damaged; {remedy}")
    if _digest(fields, arrays) != fields["sha256"]:
        raise CheckpointError(f"{path} does not match its own SHA-256: it is damaged; {remedy}")
    check_arrays(arrays, f"; {remedy}", start=f"{path}: ")
    return fields, arrays
