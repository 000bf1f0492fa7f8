"""What happens in an execution or a session, as numbered events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from .wire import Message


@dataclass(frozen=True, repr=False)
class Event:
    """One thing that happened.

    `kind` says what; `content` has the details:

    ==================  =====================================================================================
    ``stream``          `name` (stdout, stderr) and `text`, raw: escape sequences are as the code wrote them
    ``display``         a rich output, as Jupyter has it: `data` by MIME type, `metadata`, `transient`
    ``update_display``  the same, which replaces an earlier one with its `display_id`
    ``result``          the value of the last expression
    ``clear_output``    remove the output so far; `wait`: when the next one comes
    ``error``           `ename`, `evalue`, `traceback`
    ``call_opened``     the code asks: `call` is its number, `kind` input or tool
    ``call_closed``     that was answered; `state` says how
    ``truncated``       text was dropped: `written`, `kept`, `dropped` bytes
    ``data``            an item of a channel
    ``gap``             events `from` up to `next` are forgotten by the server
    ``began``           (of a session) an execution: `code`, `principal`, `execution_count`
    ``ended``           (of a session) an execution is settled: `promise` is its view
    ``status``          (of a session) its `state`
    ``restored``        (of a session) its variables are those of a checkpoint now: `Restoration.of` reads it
    ==================  =====================================================================================
    """

    #: The execution, ``"s7.e3"``; empty for ``status`` and ``restored``.
    promise: str
    #: Its number in the execution, from 1; 0 for what is about the session.
    number: int
    kind: str
    #: JSON: nearly always an object.
    content: Any = field(default_factory=dict)
    #: When, ISO 8601.
    at: str = ""

    @property
    def text(self) -> Optional[str]:
        """Text for people, where there is some: of a stream, or ``text/plain`` of a rich output."""
        if not isinstance(self.content, Mapping):
            return None
        if self.kind == "stream":
            return str(self.content.get("text", ""))
        if self.kind == "error":
            return "\n".join(str(line) for line in self.content.get("traceback", ()))
        data = self.content.get("data")
        text = data.get("text/plain") if isinstance(data, Mapping) else None
        return "".join(text) if isinstance(text, (str, list)) else None

    @property
    def stream(self) -> Optional[str]:
        """``"stdout"`` or ``"stderr"``, of text that was printed."""
        return str(self.content.get("name", "")) if self.kind == "stream" else None

    def __repr__(self) -> str:
        place = f"{self.promise}#{self.number}" if self.number else self.promise
        detail = self.text if self.text is not None else self.content
        shown = repr(detail)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}…"
        return f"<{self.stream or self.kind} {place} {shown}>".replace("  ", " ")

    __str__ = __repr__


def event_of(message: Message) -> Event:
    """The event that an `event` message carries."""
    content = message.content
    return Event(
        promise=str(content.get("promise", "")),
        number=int(content.get("number", 0)),
        kind=str(content.get("kind", "")),
        content=content.get("content", {}),
        at=str(content.get("at", "")),
    )


def gap_of(message: Message) -> Event:
    """The event that stands for a `gap` message; its number is that of the last event that is missing."""
    content = message.content
    span = {"from": int(content.get("from", 0)), "next": int(content.get("next", 0))}
    return Event(str(content.get("promise", "")), span["next"] - 1, "gap", span)
