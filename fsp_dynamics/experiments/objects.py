"""The objects that a configuration names but cannot hold: rules and firing rates of one's own.

A configuration holds a name of the package, an import path ("package.module:name"), or, for an
object given in Python that no import path leads back to, "given:NAME". The last can be read back
only where the object is given again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fsp_dynamics.errors import ConfigurationError, check_choice
from fsp_dynamics.experiments.import_path import import_object, import_path_of, is_import_path
from fsp_dynamics.learning.rules import RULES, Rule, make_rule, require_rule
from fsp_dynamics.models.activations import ACTIVATIONS, Activation

if TYPE_CHECKING:
    from collections.abc import Iterable

GIVEN = "given:"
RULE, RHO, DATA = "learning.rule", "network.rho", "data.name"
ARGUMENTS = {RULE: "rule", RHO: "activation", DATA: "data"}
"""By which argument of `train` an object of a key is given."""


def check_name(key: str, text: str, names: Iterable[str]) -> str:
    """The text, if it is one of the names, an import path, or stands for an object given in Python.
    Raises ConfigurationError with the nearest name.
    """
    if is_import_path(text) or text.startswith(GIVEN):
        return text
    if key != DATA and "." in text:
        raise ConfigurationError(f"{key} = {text!r}, expected the form package.module:name, with a colon")
    return check_choice(key, text, names)


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Where the objects of a configuration come from.

    allowed : modules that may be imported; None: any, for a configuration that the user wrote.
    given : {(dotted key, text there): object} of those given in Python.
    unreadable : {dotted key: why no import path leads back to its object}.
    """

    allowed: Sequence[str] | None = ()
    given: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def rule(self, text: str) -> Rule:
        """The learning rule of that text. Raises ConfigurationError."""
        found = self._find(RULE, text, make_rule)
        rule = _made(text, found) if isinstance(found, type) else found
        if not isinstance(rule, Rule):
            raise ConfigurationError(
                f"{RULE} = {text!r} is of type {type(rule).__name__}, expected a rule: an object or class with the "
                "methods of learning.rules.Rule"
            )
        return require_rule(rule)

    def activation(self, text: str) -> Activation:
        """The firing rate of that text. Raises ConfigurationError."""
        found = self._find(RHO, text, lambda name: ACTIVATIONS[check_choice(RHO, name, ACTIVATIONS)])
        if not isinstance(found, Activation):
            raise ConfigurationError(f"{RHO} = {text!r} is of type {type(found).__name__}, expected an Activation")
        return found

    def data(self, text: str) -> Any:
        """The data set given under that text. Raises ConfigurationError."""
        return self._find(DATA, text, lambda name: None)

    def _find(self, key: str, text: str, named: Callable[[str], Any]) -> Any:
        if (key, text) in self.given:
            return self.given[key, text]
        if text.startswith(GIVEN):
            raise ConfigurationError(
                f"{key} = {text!r} was given in Python, and no import path leads back to it; "
                f"in Python, give it again ({ARGUMENTS[key]}=...) to train or open_run"
            )
        return import_object(text, self.allowed, field=key) if is_import_path(text) else named(text)


def _made(text: str, kind: type) -> Any:
    """An object of the class, if it is a rule's. Raises ConfigurationError."""
    if not hasattr(kind, "terms"):
        raise ConfigurationError(
            f"{RULE} = {text!r} is the class {kind.__name__}, expected a rule: an object or class with the methods of "
            "learning.rules.Rule"
        )
    try:
        return kind()
    except TypeError as error:
        raise ConfigurationError(
            f"{RULE} = {text!r} is a class that cannot be called without arguments ({error}); give an object of it"
        ) from error


def describe(key: str, given: Any, names: Mapping[str, Any]) -> tuple[str, str | None]:
    """(the text that stands for an object in a configuration, why it cannot be read back or None).

    A text stands for itself; an object for its name where the package has it, its import path, or
    "given:NAME". names : {name: object or import string} of the package.
    """
    if isinstance(given, str):
        return given, None
    name = str(getattr(given, "name", None) or getattr(given, "__name__", type(given).__name__))
    known = names.get(name)
    if known is given or (known is not None and known == given) or (key == RULE and _is_registered(given, known)):
        return name, None
    try:
        return import_path_of(given), None
    except ConfigurationError as error:
        if key == RULE and _is_plain(given):
            with contextlib.suppress(ConfigurationError):
                return import_path_of(type(given)), None
        return f"{GIVEN}{name}", f"{key}: {error}"


def _is_plain(given: Any) -> bool:
    """Whether the object is what its class makes without arguments."""
    if isinstance(given, type):
        return False
    try:
        fresh = type(given)()
    except TypeError:
        return False
    return bool(fresh == given) or (hasattr(given, "__dict__") and vars(fresh) == vars(given))


def _is_registered(given: Any, known: Any) -> bool:
    """Whether `known` is the import string of a class that makes this object, or of this class."""
    kind = given if isinstance(given, type) else type(given)
    same = isinstance(known, str) and known == f"{kind.__module__}:{kind.__qualname__}"
    return same and (kind is given or _is_plain(given))


def rule_text(rule: Any) -> tuple[str, str | None]:
    """`describe` for a learning rule: a name, an object or a class."""
    return describe(RULE, rule, RULES)


def rho_text(rho: Any) -> tuple[str, str | None]:
    """`describe` for a firing rate: a name or an `Activation`."""
    return describe(RHO, rho, ACTIVATIONS)
