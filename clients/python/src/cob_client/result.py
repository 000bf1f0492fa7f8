"""What became of an execution: everything it printed and showed, put together from its events."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from .checkpoint import Restoration
from .events import Event
from .wire import Message


@dataclass(frozen=True)
class ErrorInfo:
    """How code failed, or was ended."""

    ename: str
    evalue: str
    #: Lines for people, with the escape sequences of colours.
    traceback: list[str] = field(default_factory=list, repr=False)
    #: The stable code where cob ended it (``"memory_limit"``); empty when the code itself raised.
    code: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Output:
    """One rich output: the same thing in several MIME types."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    display_id: Optional[str] = None

    @property
    def text(self) -> Optional[str]:
        """``text/plain``"""
        return self._joined("text/plain")

    @property
    def html(self) -> Optional[str]:
        """``text/html``"""
        return self._joined("text/html")

    @property
    def json(self) -> Any:
        """``application/json``, read."""
        return self.data.get("application/json")

    @property
    def png(self) -> Optional[bytes]:
        """``image/png``, decoded."""
        return self.binary("image/png")

    def binary(self, mime: str) -> Optional[bytes]:
        """The bytes of a MIME type that travels as Base64; `None` if there are none, or they are damaged."""
        text = self._joined(mime)
        try:
            return None if text is None else base64.b64decode(text)
        except (binascii.Error, ValueError):
            return None

    def _joined(self, mime: str) -> Optional[str]:
        value = self.data.get(mime)
        if isinstance(value, list):
            return "".join(str(line) for line in value)
        return None if value is None else str(value)

    def __repr__(self) -> str:
        return f"<Output {', '.join(self.data)}>"


class Outputs:
    """Puts events together as a notebook does: clears, and updates what has a display id."""

    def __init__(self) -> None:
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.displays: list[Output] = []
        self.value: Optional[Output] = None
        self.error: Optional[ErrorInfo] = None
        self.truncated: Optional[Mapping[str, Any]] = None
        self.gaps: list[tuple[int, int]] = []
        self._clears_next = False

    def add(self, event: Event) -> None:
        """The next event of the execution."""
        content = event.content if isinstance(event.content, Mapping) else {}
        if event.kind in ("stream", "display", "result") and self._clears_next:
            self._clear()
        if event.kind == "stream":
            (self.stderr if event.stream == "stderr" else self.stdout).append(event.text or "")
        elif event.kind == "display":
            self.displays.append(_output(content))
        elif event.kind == "update_display":
            self._update(_output(content))
        elif event.kind == "result":
            self.value = _output(content)
        elif event.kind == "error":
            self.error = error_info(content)
        elif event.kind == "truncated":
            self.truncated = content
        elif event.kind == "gap":
            self.gaps.append((int(content["from"]), int(content["next"])))
        elif event.kind == "clear_output":
            if content.get("wait"):
                self._clears_next = True
            else:
                self._clear()

    def _clear(self) -> None:
        self._clears_next = False
        self.stdout.clear()
        self.stderr.clear()
        self.displays.clear()

    def _update(self, new: Output) -> None:
        for index, old in enumerate(self.displays):
            if old.display_id is not None and old.display_id == new.display_id:
                self.displays[index] = new


def _output(content: Mapping[str, Any]) -> Output:
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, Mapping) else None
    return Output(content.get("data") or {}, content.get("metadata") or {}, display_id)


def error_info(content: Mapping[str, Any]) -> ErrorInfo:
    """The error of an `error` event or of a reply."""
    return ErrorInfo(
        ename=str(content.get("ename") or ""),
        evalue=str(content.get("evalue") or ""),
        traceback=[str(line) for line in content.get("traceback") or ()],
        code=str(content.get("code") or ""),
        hint=str(content.get("hint") or ""),
    )


@dataclass(frozen=True)
class Settlement:
    """How a promise ended: the content of the reply, and what cob says of it."""

    #: ``resolved``, ``rejected``, ``rejected_canceled`` or ``rejected_timedout``
    state: str
    value: Mapping[str, Any]
    last_event: int = 0
    #: ``kept``, ``restored`` or ``lost``: what became of the variables.
    session_state: str = ""
    #: Where they went back to, if they did.
    restored: Optional[Restoration] = None

    @classmethod
    def of_reply(cls, reply: Message) -> "Settlement":
        """From an ``execute_reply``."""
        cob = reply.metadata.get("cob") or {}
        state = str(cob.get("state") or ("resolved" if reply.content.get("status") == "ok" else "rejected"))
        last_event, variables = int(cob.get("last_event") or 0), str(cob.get("session_state") or "")
        restored = Restoration.of(cob.get("restored") or reply.content.get("restored"))
        return cls(state, reply.content, last_event, variables, restored)

    @classmethod
    def of_view(cls, view: Mapping[str, Any]) -> Optional["Settlement"]:
        """From the view of a promise; `None` while it is open."""
        state = str(view.get("state", ""))
        if state in ("", "pending", "started"):
            return None
        value = view.get("value")
        content = value if isinstance(value, Mapping) else {}
        last_event, variables = int(view.get("last_event") or 0), str(view.get("session_state") or "")
        restored = Restoration.of(view.get("restored") or content.get("restored"))
        return cls(state, content, last_event, variables, restored)


class Result:
    """What became of an execution.

    Of rich outputs the value of the last expression counts first, then the display that came last. All text is raw:
    escape sequences are as the code wrote them.
    """

    def __init__(self, promise: str, settlement: Settlement, outputs: Outputs) -> None:
        #: The execution, ``"s7.e3"``.
        self.promise = promise
        #: How it ended, with the whole content of the reply.
        self.settlement = settlement
        #: Text on stdout.
        self.stdout = "".join(outputs.stdout)
        #: Text on stderr.
        self.stderr = "".join(outputs.stderr)
        #: Rich outputs, in their order.
        self.displays = list(outputs.displays)
        #: The value of the last expression, if it had one.
        self.value = outputs.value
        #: Spans of events that the server has forgotten.
        self.gaps = list(outputs.gaps)
        #: How much text was dropped, if any: `written`, `kept`, `dropped` in bytes.
        self.truncated = outputs.truncated
        self._event_error = outputs.error

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end."""
        return self.settlement.state == "resolved" and self.settlement.value.get("status", "ok") == "ok"

    @property
    def error(self) -> Optional[ErrorInfo]:
        """How it failed; `None` if it did not."""
        if self.ok:
            return None
        if self.settlement.value.get("ename"):
            return error_info(self.settlement.value)
        return self._event_error or ErrorInfo(self.settlement.state, "it ended without saying why")

    @property
    def restored(self) -> Optional[Restoration]:
        """Where the variables come from, if the session went back to a checkpoint before this ran, or because it was
        lost while this ran."""
        return self.settlement.restored

    @property
    def execution_count(self) -> Optional[int]:
        """The number in ``In [n]``."""
        count = self.settlement.value.get("execution_count")
        return count if isinstance(count, int) else None

    @property
    def user_expressions(self) -> Mapping[str, Any]:
        """What became of the `user_expressions` that were asked for."""
        return self.settlement.value.get("user_expressions") or {}

    @property
    def data(self) -> Mapping[str, Any]:
        """The value of the last expression by MIME type."""
        return self.value.data if self.value else {}

    @property
    def text(self) -> Optional[str]:
        """``text/plain`` of the value of the last expression."""
        return self.value.text if self.value else None

    @property
    def html(self) -> Optional[str]:
        """HTML, if there is some."""
        return next((output.html for output in self._newest() if output.html is not None), None)

    @property
    def png(self) -> Optional[bytes]:
        """A picture, if there is one."""
        return next((output.png for output in self._newest() if output.png is not None), None)

    @property
    def json(self) -> Any:
        """``application/json``, if there is some."""
        return next((output.json for output in self._newest() if "application/json" in output.data), None)

    def _newest(self) -> list[Output]:
        return [*([self.value] if self.value else []), *reversed(self.displays)]

    def __repr__(self) -> str:
        error = self.error
        words = [self.promise, f"error={error.ename}" if error else "ok"]
        streams = (("stdout", self.stdout), ("stderr", self.stderr))
        words += [f"{name}={len(text)} chars" for name, text in streams if text]
        words += [f"text={self.text!r:.60}"] if self.text is not None else []
        words += [f"displays={len(self.displays)}"] if self.displays else []
        words += [f"restored={self.restored.checkpoint}"] if self.restored else []
        return f"<Result {' '.join(words)}>"
