"""Settings as NAME=VALUE: checked against the types that the library declares, with all mistakes in one message."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final, get_args, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from earmark.attacks import ATTACKS, attack
from earmark.cli.secrets import Minted
from earmark.core import Data, Mint, Remove
from earmark.data import open_data
from earmark.errors import BadInput, unknown_name
from earmark.marks import LabelPolicy, Passports, TriggerMint, TriggerSet, from_settings, policy_from

__all__ = ["Form", "pairs"]

T = TypeVar("T")


def _policy(value: Any) -> LabelPolicy:
    return policy_from({"policy": value} if isinstance(value, str) else value)


def _mint(value: Any) -> TriggerMint:
    settings = {"mint": value} if isinstance(value, str) else value
    if not isinstance(settings, dict):
        raise BadInput(f'expected triggers such as noise or {{"mint": "noise", "count": 30}}, got {value!r:.80}')
    return from_settings(settings)


def _mint_or_none(value: Any) -> TriggerMint | None:
    return None if value is None else _mint(value)


def _data(value: Any) -> Data:
    if not isinstance(value, str):
        raise BadInput(f"expected data such as digits or idx:DIR, got {value!r:.80}")
    return open_data(value)


def _attack(value: Any) -> Remove:
    settings = {"attack": value} if isinstance(value, str) else value
    if not isinstance(settings, dict) or not isinstance(name := settings.get("attack"), str):
        raise BadInput(
            f'expected an attack such as half or {{"attack": "prune-global", "share": 1}}, got {value!r:.80}'
        )
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    texts = [f"{setting}={json.dumps(given)}" for setting, given in settings.items() if setting != "attack"]
    form = Form.of(f"settings of {name}", ATTACKS[name], without=("checkpoint",))
    made: Remove = form.fill(texts, lambda **values: attack(name, **values))
    return made


def _passports(value: Any) -> Passports:
    if not isinstance(value, str):
        raise BadInput(f"expected the file of a mark of passports, got {value!r:.80}")
    mark = Minted.open(Path(value)).mark
    if not isinstance(mark, Passports):
        raise BadInput(f"{value} holds a mark of kind {mark.kind!r}, expected passports")
    return mark


CONVERTERS: Mapping[Any, Callable[[Any], Any]] = {
    Data: _data,
    LabelPolicy: _policy,
    Mint[TriggerSet]: _mint,
    Passports: _passports,
    Remove: _attack,
    TriggerMint: _mint,
    TriggerMint | None: _mint_or_none,
}
"""Values of the library that have a short text, a JSON object or a file of their own."""


def pairs(texts: Sequence[str] | None, option: str = "--set") -> dict[str, str]:
    """The texts after the equals signs, by name.

    Raises:
        BadInput: a text without an equals sign, or a name that occurs twice.
    """
    split = [text.partition("=") for text in texts or ()]
    wrong = [f"expected NAME=VALUE, got {name!r}" for name, equals, _ in split if not (name and equals)]
    names = [name for name, _, _ in split]
    wrong += [f"{name} is given twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if wrong:
        raise BadInput(f"{option}: {'; '.join(wrong)}")
    return {name: text for name, _, text in split}


def value_of(text: str) -> Any:
    """The JSON value that a text is, or else the text itself.

    >>> [value_of(text) for text in ("0.5", "[2, 3]", "sgd", "NaN")]
    [0.5, [2, 3], 'sgd', 'NaN']
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


@final
@dataclass(frozen=True)
class Form:
    """The settings that something takes, by name, with their types; what no text can give is left out."""

    what: str
    types: Mapping[str, Any]

    @classmethod
    def of(cls, what: str, *makers: Callable[..., Any], without: Collection[str] = ()) -> Form:
        """The parameters of functions and dataclasses."""
        types: dict[str, Any] = {}
        for maker in makers:
            hints = get_type_hints(maker.func if isinstance(maker, partial) else maker)
            types |= {name: hints[name] for name in inspect.signature(maker).parameters if name not in without}
        return cls(what, {name: hint for name, hint in types.items() if hint in CONVERTERS or _adapter(hint)})

    def fill(self, texts: Sequence[str] | None, build: Callable[..., T]) -> T:
        """What `build` makes of the settings.

        Raises:
            BadInput: everything that is wrong: unknown names, values of another type, values that `build` refuses.
        """
        values: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for name, text in pairs(texts).items():
            try:
                values[name] = self._read(name, text)
            except BadInput as error:
                wrong[name] = str(error)
        try:
            built = build(**values)
        except BadInput as error:
            lacking = _fault(build, {})  # what is wrong with any one setting alone, so with none of them
            alone = [_fault(build, {name: value}) for name, value in values.items()]
            faults = [fault for fault in dict.fromkeys(alone) if fault and fault != lacking] or [str(error)]
            named = any(re.search(rf"\b{re.escape(name)}\b", lacking or "") for name in wrong)
            faults = [fault for fault in faults if not (named and fault == lacking)]  # unreadable, so not lacking
            raise BadInput(f"{self.what}: {'; '.join([*wrong.values(), *faults])}") from error
        if wrong:
            raise BadInput(f"{self.what}: {'; '.join(wrong.values())}")
        return built

    def _read(self, name: str, text: str) -> Any:
        if name not in self.types:
            raise unknown_name("setting", name, self.types)
        value, hint = value_of(text), self.types[name]
        if text == "none" and type(None) in get_args(hint):
            return None
        if hint in CONVERTERS:
            return CONVERTERS[hint](value)
        try:
            return _typed(hint, value)
        except ValidationError as error:
            if not isinstance(value, str) and _accepts(hint, text):
                return text
            said = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise BadInput(f"{name}: {said[:1].lower()}{said[1:]}, got {text[:60]!r}") from error


def _fault(build: Callable[..., object], values: Mapping[str, Any]) -> str | None:
    try:
        build(**values)
    except BadInput as error:
        return str(error)
    return None


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """The check of a type that JSON can hold; None for functions, modules and the like."""
    try:
        adapter = TypeAdapter(hint)
        adapter.json_schema()
    except PydanticUserError:
        return None
    return adapter


def _typed(hint: Any, value: Any) -> Any:
    return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)


def _accepts(hint: Any, value: Any) -> bool:
    try:
        _typed(hint, value)
    except ValidationError:
        return False
    return True
