"""Functions of this program that code in a session may call, as ``cob.tools.NAME(…)``."""

from __future__ import annotations

import inspect
import types
import typing
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Union

from .execution import call

_NAMES: Mapping[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    tuple: "array",
    dict: "object",
    type(None): "null",
}


@dataclass(frozen=True)
class Tool:
    """A function, and what code and models are told about it."""

    name: str
    function: Callable[..., Any]
    description: Optional[str]
    #: JSON schema of its arguments.
    parameters: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        name: Optional[str] = None,
        description: Optional[str] = None,
        parameters: Optional[Mapping[str, Any]] = None,
    ) -> "Tool":
        """Name, description and schema from the function, where they are not given."""
        described = description if description is not None else inspect.getdoc(function)
        return cls(name or function.__name__, function, described, parameters or schema_of(function))

    def announcement(self) -> Mapping[str, Any]:
        """What the server is told."""
        told: dict[str, Any] = {"name": self.name, "parameters": self.parameters}
        if self.description:
            told["description"] = self.description
        return told

    async def answer(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Calls it; the fields of `answer`. What it raises is raised by the code that called it."""
        try:
            return {"value": await call(self.function, **arguments)}
        except Exception as error:
            return failure_of(error)


def failure_of(error: BaseException) -> Mapping[str, Any]:
    """The fields of `answer` for a tool that failed."""
    return {"error": {"ename": type(error).__name__, "evalue": str(error)}}


def schema_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """A simple JSON schema from the type hints of a function."""
    try:
        hints = typing.get_type_hints(function)
    except Exception:
        # Hints may name what is not there at run time; then there are none.
        hints = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    is_open = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            is_open = is_open or parameter.kind == parameter.VAR_KEYWORD
            continue
        properties[name] = _schema(hints.get(name, Any))
        if parameter.default is parameter.empty:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": is_open}


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument) for argument in arguments]}
    name = _NAMES.get(origin or hint)
    if name is None:
        return {}
    if name == "array" and arguments:
        return {"type": name, "items": _schema(arguments[0])}
    if name == "object" and len(arguments) == 2:
        return {"type": name, "additionalProperties": _schema(arguments[1])}
    return {"type": name}
