"""Types of config values, and the sentence that refuses a wrong one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    create_model,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from typing_extensions import Self

from fuxictr_miss.errors import InputError, unknown

_WORDS: dict[Any, str] = {
    Any: "anything",
    bool: "True or False, without quotes",
    float: "a finite number",
    int: "a whole number",
    str: "a text",
    type(None): "null",
}
_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")

Places = Mapping[str, str]  # where each key was read, such as "file, line 3"; "" for all others


def described(description: str, **limits: Any) -> Any:
    """What a type takes in words, with its limits as in `pydantic.Field`."""
    return Field(description=description, **limits)


def describe(hint: Any) -> str:
    """What a type takes, in words: its description, or those of the types that it is made of."""
    field = hint if isinstance(hint, FieldInfo) else FieldInfo.from_annotation(hint)
    kind, parts = field.annotation, get_args(field.annotation)
    if field.description:
        return field.description
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(name) or '""' for name in parts)
    if get_origin(kind) in (Union, UnionType):
        return ", or ".join(filter(None, map(describe, parts)))
    if get_origin(kind) is list and not field.metadata:
        return f"a list, each entry {describe(parts[0])}"
    return "" if field.metadata else _WORDS.get(kind, "")


def _switch(value: Any) -> Any:
    return bool(value) if type(value) is int and value in (0, 1) else value


Count = Annotated[int, described("a whole number from 1 to 2147483647", ge=1, lt=2**31)]
Natural = Annotated[int, described("a whole number from 0 to 2147483647", ge=0, lt=2**31)]
Positive = Annotated[float, described("a number above 0", gt=0)]
NonNegative = Annotated[float, described("a number of 0 or more", ge=0)]
Share = Annotated[float, described("a number from 0 to 1", ge=0, le=1)]
Rate = Annotated[float, described("a number from 0 to below 1", ge=0, lt=1)]
PositiveRate = Annotated[float, described("a number between 0 and 1", gt=0, lt=1)]
LayerSizes = Annotated[list[Count], described("a list of layer sizes from 1", min_length=1)]
Layers = Annotated[list[Count], described("a list of layer sizes from 1; [] for none")]
Switch = Annotated[bool, BeforeValidator(_switch), described("True or False, without quotes")]


class Checked(BaseModel):
    """Keys and their types, strictly checked.

    Only a whole number becomes a real one where one is asked for, and so does text like 1e-3, which
    YAML 1.1 does not take for a number; a tuple becomes a list.
    """

    model_config = ConfigDict(
        strict=True, allow_inf_nan=False, frozen=True, protected_namespaces=()
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _convert(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            with suppress(ValidationError):
                return check(_plain(value))
            raise error

    @classmethod
    def with_keys(cls, types: Mapping[str, Any]) -> type[Checked]:
        """A class with these keys and their types."""
        fields: dict[str, Any] = {key: (hint, None) for key, hint in types.items()}
        return create_model("Keys", __base__=Checked, **fields)

    @classmethod
    def read(cls, values: Mapping[str, Any], places: Places | None = None) -> Self:
        """Check values by key; missing ones get their default.

        Args:
            values: keys and values.
            places: where they were read, for the error message.

        Raises:
            InputError: names the place, the key, the value, and the allowed values.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        errors.sort(key=lambda each: each["type"] == "missing")  # a mistyped key is missing, too
        first = errors[0]["loc"][:1]  # of one key, or none for a rule about several
        key = str(first[0]) if first else ""
        of_key = [each for each in errors if each["loc"][:1] == first]
        sentence = cls._sentence(key, values.get(key), of_key)
        places = places or {}
        place = places.get(key) or places.get("")
        raise InputError(f"{place}: {sentence}" if place else sentence)

    @classmethod
    def _sentence(cls, key: str, value: Any, errors: list[ErrorDetails]) -> str:
        """Why a value is refused; pydantic has an error for each type that it could have had."""
        reason = errors[0].get("ctx", {}).get("error")
        if isinstance(reason, InputError):
            return str(reason)
        if errors[0]["type"] == "missing":
            return f"{key} is missing."
        if errors[0]["type"] == "invalid_key":
            return f"The key {key} must be text: put it in quotes."
        if errors[0]["type"] == "extra_forbidden":
            return str(unknown("key", key, cls.model_fields))
        for each in reversed(errors):
            if each["type"] == "literal_error" and isinstance(each["input"], str):
                valid = re.findall("'(.*?)'", each["ctx"]["expected"])
                return str(unknown(key, each["input"], valid))
        rule = describe(cls.model_fields[key])
        rule = rule or errors[0]["msg"].removeprefix("Input should be ")
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return f"{key} must be {rule}, got {shown}."


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        return float(value)
    return value
