"""What an argument may be, said once beside its type, in YAML and in Python alike.

A field such as `strength: Annotated[float, Between(0, 1)] = 0.8` is of its type and keeps its rules;
`check_fields` sees to it when the object is made, and the command line before anything heavy is imported. A
rule is not asked about null. Rules of ranges ask for finite numbers.

Loads no torch.
"""

import functools
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from p2p_bench.errors import ConfigError, nearest

_LONGEST = 200
"""Letters of a value that a message shows."""


class Rule(ABC):
    """What a value of the right type has to be besides, as metadata of `typing.Annotated`."""

    @abstractmethod
    def broken(self, value: Any, whole: bool) -> str:
        """What is expected, in words; "" if the value keeps the rule, or if the rule is not about its kind.

        Args:
            value: Of the annotated type, and not null.
            whole: Whether the type takes no fractions.
        """

    def fault(self, name: str, value: Any, hint: Any) -> str:
        """What is wrong with a value, as a message; "" if nothing is."""
        kinds = [kind for kind, _ in _choices(hint)]
        expected = self.broken(value, float not in kinds)
        null = ", or null" if type(None) in kinds else ""
        return f"{name}: expected {expected}{null}, got {shown(value)}" if expected else ""


@dataclass(frozen=True)
class AtLeast(Rule):
    """A finite number from `low` on."""

    low: float | int

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        if not _is_number(value) or self.low <= value < inf:
            return ""
        return f"{'' if whole else 'a finite number of '}at least {self.low:g}"


@dataclass(frozen=True)
class Above(Rule):
    """A finite number above `low`."""

    low: float | int

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        if not _is_number(value) or self.low < value < inf:
            return ""
        return f"{'' if whole else 'a finite number '}above {self.low:g}"


@dataclass(frozen=True)
class Between(Rule):
    """A number from `low` to `high`.

    Attributes:
        low: The least.
        high: The largest.
        noun: What the number is, for messages.
        open_low: Whether `low` itself is refused.
        open_high: Whether `high` itself is refused.
    """

    low: float | int
    high: float | int
    noun: str = ""
    open_low: bool = False
    open_high: bool = False

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        if not _is_number(value) or (
            self.low <= value <= self.high
            and not (self.open_low and value == self.low)
            and not (self.open_high and value == self.high)
        ):
            return ""
        noun = self.noun or ("an integer" if whole else "a finite number")
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"{noun} in {left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True)
class Odd(Rule):
    """An odd number from `low` on."""

    low: int

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        if not _is_number(value) or (value >= self.low and value % 2 == 1):
            return ""
        return f"an odd number of at least {self.low}"


@dataclass(frozen=True)
class Halving(Rule):
    """One of 1, 1/2, 1/4 and so on, `times` of them."""

    times: int

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        holds = not _is_number(value) or value in [2.0**-level for level in range(self.times)]
        return "" if holds else "1, 0.5, 0.25, ..."


@dataclass(frozen=True)
class NotEmpty(Rule):
    """A list or mapping with something in it.

    Attributes:
        words: What is expected, for messages.
    """

    words: str

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        return self.words if isinstance(value, Sequence | Mapping) and not len(value) else ""


@dataclass(frozen=True)
class Words(Rule):
    """A text, a list of texts or a mapping of texts to texts, none of them blank.

    Attributes:
        words: What is expected, for messages.
        needed: Whether there must be one.
    """

    words: str
    needed: bool = False

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        if isinstance(value, Mapping):
            found = [str(word) for pair in value.items() for word in pair]
        elif isinstance(value, str | Sequence):
            found = [value] if isinstance(value, str) else [str(word) for word in value]
        else:
            return ""
        holds = all(word.strip() for word in found) and (found or not self.needed)
        return "" if holds else self.words


@dataclass(frozen=True)
class Factors(Rule):
    """A mapping of words to finite numbers.

    Attributes:
        needed: Whether there must be one.
    """

    needed: bool = False

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        if not isinstance(value, Mapping):
            return ""
        if self.needed and not value:
            return 'at least one word, such as {"fog": 2.0}'
        return next((f"a finite number for {str(word)!r}" for word in self._wrong(value)), "")

    def fault(self, name: str, value: Any, hint: Any) -> str:
        """See `Rule.fault`; shows the factor alone."""
        text = super().fault(name, value, hint)
        wrong = self._wrong(value) if text else []
        return f"{text.rpartition(', got ')[0]}, got {shown(value[wrong[0]])}" if wrong else text

    def _wrong(self, value: Mapping[Any, Any]) -> list[Any]:
        return [word for word, factor in value.items() if not _is_number(factor) or not -inf < factor < inf]


@dataclass(frozen=True)
class OneOf(Rule):
    """A text that is one of some options, or a list of at least one of them.

    Attributes:
        options: The options.
    """

    options: tuple[str, ...]

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if not isinstance(value, str | Sequence) or (value and not self._wrong(value)):
            return ""
        if len(self.options) == 2:
            return " or ".join(map(repr, self.options))
        return f"{'a list of at least one' if is_list else 'one'} of " + ", ".join(map(repr, self.options))

    def fault(self, name: str, value: Any, hint: Any) -> str:
        """See `Rule.fault`; names the option that is nearest to what is none."""
        text = super().fault(name, value, hint)
        wrong = self._wrong(value) if text else []
        return f"{text}.{nearest(str(wrong[0]), self.options)}" if wrong else text

    def _wrong(self, value: Sequence[Any]) -> list[Any]:
        return [item for item in ([value] if isinstance(value, str) else value) if item not in self.options]


@dataclass(frozen=True)
class Parsed(Rule):
    """Whatever a function reads; a component keeps what the function makes of it.

    Attributes:
        parse: Takes the value and a name for its messages; raises a `ConfigError`. What it returns it takes,
            too, and returns as it is.
    """

    parse: Callable[[Any, str], Any]

    def broken(self, value: Any, whole: bool) -> str:
        """See `Rule.broken`."""
        return self.fault("", value, Any)

    def fault(self, name: str, value: Any, hint: Any) -> str:
        """See `Rule.fault`; in the function's own words."""
        try:
            self.parse(value, name)
        except ConfigError as error:
            return str(error)
        return ""


def check_fields(component: Any, label: str) -> None:
    """Checks the plain values of a dataclass against its annotations; called first in `__post_init__`.

    What is `Parsed` becomes what was read; numbers of other kinds, such as NumPy's, Python's own for torch.

    Args:
        component: An instance whose fields are set.
        label: What messages call it, such as "reweight".

    Raises:
        ConfigError: A value is of another kind, or breaks a rule.
    """
    kind: Any = type(component)
    parsers = _parsers(kind)
    for name, hint in _hints(kind).items():
        value = getattr(component, name)
        fault = fault_of(f"{label}{name}", value, hint)
        if fault is not None:
            raise fault
        read = name in parsers and value is not None
        object.__setattr__(component, name, parsers[name](value, name) if read else _own(value))


def _own(value: Any) -> Any:
    """A number, or the numbers of a mapping, as Python's own; anything else as it is."""
    if type(value) is dict:
        return {key: _own(item) for key, item in value.items()}
    if not _is_number(value) or type(value) in (int, float):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


@functools.lru_cache(maxsize=256)
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


@functools.lru_cache(maxsize=256)
def _parsers(kind: type) -> dict[str, Callable[[Any, str], Any]]:
    """What reads the fields that are `Parsed`."""
    rules = {name: [rule for _, own in _choices(hint) for rule in own] for name, hint in _hints(kind).items()}
    return {name: rule.parse for name, own in rules.items() for rule in own if isinstance(rule, Parsed)}


def fault_of(name: str, value: Any, hint: Any) -> ConfigError | None:
    """What is wrong with an argument.

    Args:
        name: Its name, for the message.
        value: What is given.
        hint: Its annotation, with its rules.

    Returns:
        The error to raise; None if the value may stand.
    """
    choices = _choices(hint)
    fitting = [rules for kind, rules in choices if fits(value, kind)]
    if not fitting:
        listed = [get_args(kind) for kind, _ in choices if get_origin(kind) is Literal]
        options = [option for options in listed for option in options if isinstance(option, str)]
        return ConfigError(f"{name}: expected {words_of(hint)}, got {shown(value, options)}")
    if _is_node(value) or (value is None and any(kind is type(None) for kind, _ in choices)):
        return None
    texts = (rule.fault(name, value, hint) for rule in fitting[0])
    return next((ConfigError(text) for text in texts if text), None)


def shown(value: Any, options: Sequence[str] = ()) -> str:
    """A value as messages show it, with the option that is nearest to a misspelt one."""
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str) and not len(value):
        return "none"
    plain = value is None or isinstance(value, str | bool | Real | Sequence | Mapping)
    text = repr(value) if plain else type(value).__name__
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{text}.{nearest(value, options)}" if isinstance(value, str) and options else text


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type of an argument annotated so; types beyond plain values always fit."""
    if _is_node(value):
        return True
    choices = _choices(hint)
    if len(choices) > 1:
        return any(fits(value, kind) for kind, _ in choices)
    hint = choices[0][0]
    origin = get_origin(hint)
    if origin is Literal:
        return any(
            value is option or (type(value) is type(option) and value == option) for option in get_args(hint)
        )
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    if hint is Path:
        return isinstance(value, str | Path)
    if origin in (tuple, list, Sequence):
        return _fits_sequence(value, origin, get_args(hint))
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return True


def words_of(hint: Any) -> str:
    """The type of an annotation in words, for messages."""
    choices = _choices(hint)
    if len(choices) > 1:
        return " or ".join(dict.fromkeys(words_of(kind) for kind, _ in choices))
    hint = choices[0][0]
    origin = get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if origin in (dict, Mapping):
        return "a mapping"
    if origin in (tuple, list, Sequence):
        return "a list"
    return "null" if hint is type(None) else names.get(hint, getattr(hint, "__name__", str(hint)))


def _fits_sequence(value: Any, origin: Any, args: tuple[Any, ...]) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    if origin is tuple and Ellipsis not in args:
        return len(value) == len(args) and all(map(fits, value, args))
    return not args or all(fits(item, args[0]) for item in value)


def _choices(hint: Any) -> list[tuple[Any, tuple[Rule, ...]]]:
    """The plain types that an annotation allows, in order, each with the rules that are written beside it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        own = tuple(rule for rule in args[1:] if isinstance(rule, Rule))
        return [(kind, own + rules) for kind, rules in _choices(args[0])]
    if origin in (Union, types.UnionType):
        return [choice for option in args for choice in _choices(option)]
    return [(type(None) if hint is None else hint, ())]


def _is_node(value: Any) -> bool:
    """Whether a value is the description of an object that is yet to be made."""
    return isinstance(value, Mapping) and "_target_" in value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
