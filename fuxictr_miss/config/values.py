"""Types of config values, and the sentence that refuses a wrong one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import ErrorDetails

from fuxictr_miss.errors import InputError, unknown

_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")

CheckedT = TypeVar("CheckedT", bound="Checked")


def described(description: str, **limits: Any) -> Any:
    """What a type takes in words, with its limits as in `pydantic.Field`."""
    return Field(description=description, **limits)


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
    def read(
        cls: type[CheckedT], values: Mapping[str, Any], places: Mapping[str, str] | None = None
    ) -> CheckedT:
        """Check values by key; missing ones get their default.

        Args:
            values: keys and values.
            places: where each key was read; "" for all others.

        Raises:
            InputError: names the place, the key, the value, and the allowed values.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            errors = error.errors(include_url=False)
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
        if key not in cls.model_fields:
            return f"The key {key!r} must be text: put it in quotes."
        for each in reversed(errors):
            if each["type"] == "literal_error" and isinstance(each["input"], str):
                valid = re.findall("'(.*?)'", each["ctx"]["expected"])
                return str(unknown(key, each["input"], valid))
        rule = errors[-1]["msg"].removeprefix("Input should be ")
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return f"{key} must be {cls.model_fields[key].description or rule}, got {shown}."


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        return float(value)
    return value
