"""A session: one namespace at the server, which lives on whatever becomes of this client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Mapping, Optional, TypeVar, overload

from .channel import Channel
from .errors import CobError, ExecutionError, NotFound, ProtocolError, SessionClosed
from .events import Event, event_of, gap_of
from .execution import Execution, OnInput
from .result import Result
from .stream import Numbers, Stream
from .tools import Tool
from .wire import Message, new_id

if TYPE_CHECKING:
    from .client import Client

Function = TypeVar("Function", bound=Callable[..., Any])


def present(**fields: Any) -> dict[str, Any]:
    """The fields that were given: absent ones are the server's choice."""
    return {name: value for name, value in fields.items() if value is not None}


def milliseconds(seconds: Optional[float]) -> Optional[int]:
    """Of seconds, rounded up."""
    return None if seconds is None else max(0, -int(-seconds * 1000 // 1))


class Session:
    """One session. Used with ``async with`` it is closed at the end if this client opened it."""

    def __init__(self, client: "Client", session_id: str, is_own: bool) -> None:
        self._client = client
        #: Its name at the server, ``"s7"``: `Client.session` finds it again.
        self.id = session_id
        self._is_own = is_own
        self._offering: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if not self._is_own:
            return
        try:
            await self.close()
        except CobError:
            # What ended the block says more than a session that could not be closed.
            if error is None:
                raise

    # --- Code ------------------------------------------------------------------------------------------------

    async def execute(
        self,
        code: str,
        *,
        on_input: Optional[OnInput] = None,
        key: Optional[str] = None,
        deadline: Optional[float] = None,
        durability: Optional[str] = None,
        output_limit: Optional[int] = None,
        priority: Optional[int] = None,
        silent: Optional[bool] = None,
        store_history: Optional[bool] = None,
        stop_on_error: Optional[bool] = None,
        user_expressions: Optional[Mapping[str, str]] = None,
    ) -> Execution:
        """Runs code; returns when it is recorded, which it then is for good.

        `key`: asked for again with the same key and code, by any program, it does not run again: everybody gets the same
        execution. Without one it is still sent safely over reconnects. `on_input` answers ``input()``. `deadline` is in
        seconds from the arrival at the server, and more than 0. Errors of the code are not raised here, but told in the result.
        """
        if deadline is not None and deadline <= 0:
            raise ValueError(f"deadline is in seconds and more than 0: {deadline}")
        await self._offered()
        content = present(
            session_id=self.id,
            code=code,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            allow_stdin=True if on_input is not None else None,
            stop_on_error=stop_on_error,
            idempotency_key=key if key is not None else new_id(),
            deadline_ms=milliseconds(deadline),
            durability=durability,
            output_limit=output_limit,
            priority=priority,
            credit=self._client.connection.options.window,
        )
        execution = Execution(self._client)
        await execution.start(content, on_input)
        return execution

    async def run(self, code: str, *, check: bool = True, **options: Any) -> Result:
        """Runs code to its end and returns everything of it. Code that fails raises `ExecutionError`, unless told not
        to `check`. Takes the options of `execute`."""
        execution = await self.execute(code, **options)
        result = await execution.result()
        if check and not result.ok:
            raise_failure(result)
        return result

    # --- Control ---------------------------------------------------------------------------------------------

    async def interrupt(self) -> None:
        """Stops the code that runs, as Ctrl-C does. It is not repeated over a reconnect, where other code may run:
        `Execution.cancel` is for exactly one execution."""
        await self._client.connection.request("interrupt", {"session_id": self.id}, repeat=False)

    async def restart(self) -> None:
        """A fresh namespace. What runs or waits is cancelled. It is not repeated over a reconnect."""
        await self._client.connection.request("restart", {"session_id": self.id}, repeat=False)

    async def close(self, *, drain: bool = False) -> None:
        """Ends the session. `drain`: what runs and waits comes to its end first; otherwise it is cancelled."""
        mode = "drain" if drain else "now"
        self._client.forget_tools(self.id)
        try:
            await self._client.connection.request("session_close", {"session_id": self.id, "mode": mode})
        except (SessionClosed, NotFound):
            # It is closed, by whomever.
            pass

    async def info(self, *, namespace: bool = False) -> Mapping[str, Any]:
        """Everything the server tells of it; with `namespace` also names, types and sizes of its variables."""
        content = {"session_id": self.id, "namespace": namespace}
        reply = await self._client.connection.request("session_info", content)
        return _mapping(reply.content.get("session"))

    # --- About code ------------------------------------------------------------------------------------------

    async def complete(self, code: str, cursor_pos: Optional[int] = None) -> Mapping[str, Any]:
        """What could stand at the cursor: `matches`, `cursor_start`, `cursor_end`."""
        cursor = len(code) if cursor_pos is None else cursor_pos
        return await self._jupyter("complete_request", code=code, cursor_pos=cursor)

    async def inspect(self, code: str, cursor_pos: Optional[int] = None, detail_level: int = 0) -> Mapping[str, Any]:
        """What is known of the thing at the cursor: `found`, `data` by MIME type."""
        cursor = len(code) if cursor_pos is None else cursor_pos
        return await self._jupyter("inspect_request", code=code, cursor_pos=cursor, detail_level=detail_level)

    async def is_complete(self, code: str) -> Mapping[str, Any]:
        """Whether code is whole: `status` is complete, incomplete (with an `indent`), invalid or unknown."""
        return await self._jupyter("is_complete_request", code=code)

    async def history(self, count: int = 100, *, output: bool = False) -> list[tuple[Any, ...]]:
        """The last inputs: (session, line number, input)."""
        reply = await self._jupyter("history_request", hist_access_type="tail", n=count, output=output, raw=True)
        return [tuple(entry) for entry in reply.get("history", ())]

    async def _jupyter(self, msg_type: str, **fields: Any) -> Mapping[str, Any]:
        reply = await self._client.connection.request(msg_type, {"session_id": self.id, **fields})
        return reply.content

    # --- Events, channels, tools -----------------------------------------------------------------------------

    def events(self, from_: int = 1) -> AsyncIterator[Event]:
        """Everything of the session from execution number `from_` on, whoever asked for it: past and to come."""
        return SessionEvents(SessionStream(self._client.connection, self.id, from_))

    def channel(self, name: str, from_: int = 1) -> Channel:
        """The durable channel of this name; what the code sent is read from item `from_` on."""
        return Channel(self._client.connection, self.id, name, from_)

    @overload
    def tool(self, function: Function) -> Function: ...

    @overload
    def tool(
        self, *, name: Optional[str] = None, description: Optional[str] = None
    ) -> Callable[[Function], Function]: ...

    def tool(
        self, function: Optional[Function] = None, *, name: Optional[str] = None, description: Optional[str] = None
    ) -> Any:
        """Decorator: offers a function to the code, which calls it as ``cob.tools.NAME(…)``."""

        def offer(function: Function) -> Function:
            task = asyncio.ensure_future(self.register_tool(function, name=name, description=description))
            self._offering.add(task)
            return function

        return offer if function is None else offer(function)

    async def register_tool(
        self,
        function: Callable[..., Any],
        *,
        name: Optional[str] = None,
        description: Optional[str] = None,
        parameters: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """Offers a function to the code, now and after every reconnect. Calls of it that wait are put to it."""
        await self._client.offer(self.id, Tool.of(function, name, description, parameters))

    async def unregister_tool(self, name: str) -> None:
        """Does not offer it any more."""
        await self._client.withdraw(self.id, name)

    async def _offered(self) -> None:
        """Tools that were decorated are there before the code that calls them."""
        while self._offering:
            await self._offering.pop()

    def __repr__(self) -> str:
        return f"<Session {self.id}>"


def raise_failure(result: Result) -> None:
    """Raises what became of an execution that failed."""
    error = ExecutionError(result)
    if error.code:
        from .errors import from_content

        raise error from from_content(result.settlement.value)
    raise error


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ProtocolError("the server's reply has not the form that was expected.")
    return value


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
            self._execution_ended(_mapping(content.get("promise")))
            return
        promise = str(content.get("promise", ""))
        is_over = _number_of(promise) < self._first or _number_of(promise) in self._ended
        if message.type == "execution_began":
            if not is_over and promise not in self._open:
                self._open[promise] = Numbers()
                self._put(Event(promise, 0, "began", present(**dict(content))), cost=0)
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
