"""What settings of the libraries (environment variables, files in the working folder) do to their
start, in one line.
"""

from __future__ import annotations

import importlib
import os
import traceback
from types import ModuleType

from fsp_dynamics.errors import ConfigurationError

LIBRARIES = {
    "numba": ("which compiles the kernels", "NUMBA_", ".numba_config.yaml"),
    "matplotlib": ("which draws", "MPL", "matplotlibrc"),
}
"""What each is for, how its variables begin, and its file."""


EXTRAS = {"torch": "torch", "torchdiffeq": "torch", "nir": "nir"}
"""Libraries that come with an extra of the package, and that extra."""


def imported(module: str) -> ModuleType:
    """A module of the package. Raises ConfigurationError if a library does not start with its
    settings, and what else its import raises.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise explained(error) or error from None


def explained(error: BaseException) -> ConfigurationError | None:
    """The error with which a library could not be imported, with the settings it may have come
    from, or with what installs it; None for any other error, and where there are no settings.
    """
    if isinstance(error, ModuleNotFoundError) and (missing := (error.name or "").partition(".")[0]) in EXTRAS:
        return ConfigurationError(
            f"{missing} is not installed, which this needs; pip install 'fsp_dynamics[{EXTRAS[missing]}]'"
        )
    modules = {
        frame.f_globals.get("__name__")
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    }
    for library, (purpose, variables, file) in LIBRARIES.items():
        found = _settings(variables, file)
        if library in modules and found and not isinstance(error, ImportError):
            reason = " ".join(str(error).split())
            return ConfigurationError(f"{library}, {purpose}, does not start: {reason}; mend or unset {found}")
    return None


def _settings(variables: str, file: str) -> str:
    """What a library reads its settings from."""
    found = [f"{name} = {value!r}" for name, value in sorted(os.environ.items()) if name.startswith(variables)]
    return ", ".join(found + ([file] if os.path.isfile(file) else []))


def checked_features(given: str | None) -> list[str]:
    """The features of the processor that NUMBA_CPU_FEATURES names, at whose form LLVM would end the
    process. Raises ConfigurationError.
    """
    features = [each.strip() for each in (given or "").split(",") if each.strip()]
    for each in features:
        if each[0] not in "+-":
            raise ConfigurationError(
                f"NUMBA_CPU_FEATURES = {given!r}, expected features with + or - before each "
                "(+avx2,-fma); mend or unset it"
            )
    return features
