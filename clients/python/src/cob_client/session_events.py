"""Everything that happens in a session, as one stream."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from .errors import ProtocolError
from .events import Event, event_of, gap_of
from .stream import Numbers, Stream
from .wire import Message


class SessionStream(Stream[Event]):
    """Everything of a session. It is asked for again from the first execution that has not ended; what has come of it
    and of later ones is known by its numbers."""

    def __init__(self, connection: Any, session_id: str, first: int) -> None:
        super().__init__(connection)
        self._session_id = session_id
        self._first = first
        self._ended: set[int] = set()
        self._open: dict[str, Numbers] = {}
        self._state: Optional[str] = None

    def _request(self, credit: int) -> tuple[str, Mapping[str, Any]]:
        return "subscribe", {"session_id": self._session_id, "from": self._first, "credit": max(credit, 1)}

    def _take(self, message: Message) -> None:
        content = message.content
        if message.type == "session_status":
            self._status(str(content.get("state", "")))
            return
        if message.type == "execution_ended":
            self._execution_ended(mapping(content.get("promise")))
            return
        if message.type == "session_restored":
            self._put(Event("", 0, "restored", content.get("restored") or {}), cost=0)
            return
        promise = str(content.get("promise", ""))
        is_over = _number_of(promise) < self._first or _number_of(promise) in self._ended
        if message.type == "execution_began":
            if not is_over and promise not in self._open:
                self._open[promise] = Numbers()
                self._put(Event(promise, 0, "began", {name: value for name, value in content.items() if value is not None}), cost=0)
        elif message.type == "event":
            self._event(event_of(message), is_over)
        elif message.type == "gap" and not is_over:
            gap, numbers = gap_of(message), self._open.setdefault(promise, Numbers())
            if gap.number >= numbers.next:
                numbers.next = gap.number + 1
                self._put(gap, cost=0)

    def _event(self, event: Event, is_over: bool) -> None:
        numbers = self._open.setdefault(event.promise, Numbers())
        admitted = False if is_over else numbers.admit(event.number)
        if admitted is None:
            self._again()
        elif not admitted or event.kind == "done":
            self._return(1)
        else:
            self._put(event)

    def _execution_ended(self, view: Mapping[str, Any]) -> None:
        promise = str(view.get("promise", ""))
        number = _number_of(promise)
        if number < self._first or number in self._ended:
            return
        self._open.pop(promise, None)
        self._ended.add(number)
        while self._first in self._ended:
            self._ended.discard(self._first)
            self._first += 1
        self._put(Event(promise, 0, "ended", view), cost=0)

    def _status(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._put(Event("", 0, "status", {"state": state}), cost=0)


class SessionEvents:
    """What `Session.events` gives; `detach` ends it."""

    def __init__(self, stream: SessionStream) -> None:
        self._stream = stream

    def __aiter__(self) -> "SessionEvents":
        return self

    async def __anext__(self) -> Event:
        event = await self._stream.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def detach(self) -> None:
        """No more of them."""
        await self._stream.stop()


def _number_of(promise: str) -> int:
    """The number of an execution in its session: 3 of ``"s7.e3"``."""
    digits = promise.partition(".e")[2].partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def mapping(value: Any) -> Mapping[str, Any]:
    """An object of JSON, where one must be."""
    if not isinstance(value, Mapping):
        raise ProtocolError("the server's reply has not the form that was expected.")
    return value
