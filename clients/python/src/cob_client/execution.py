"""One execution: its events as they come, and its result."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any, AsyncIterator, Awaitable, Callable, Mapping, Optional, Union

from .connection import Connection, Request
from .errors import CobError, Declined, NotSettled, ProtocolError, from_content
from .events import Event, event_of, gap_of
from .result import Outputs, Result, Settlement
from .stream import Numbers, Stream
from .wire import Message

if TYPE_CHECKING:
    from .client import Client

#: How often a stream that skips events is asked for again before that is an error.
_MISSES_MAX = 3


class Prompt(str):
    """What ``input()`` asks. `password`: the answer must not be shown."""

    password: bool = False

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Prompt":
        """From the arguments of a call."""
        prompt = cls(arguments.get("prompt") or "")
        prompt.password = bool(arguments.get("password"))
        return prompt


OnInput = Callable[[Prompt], Union[str, Awaitable[str]]]


class EventStream(Stream[Event]):
    """The events of one execution."""

    def __init__(self, connection: Connection, first: int, on_settled: Callable[[Settlement], None]) -> None:
        super().__init__(connection)
        self.promise = ""
        self._numbers = Numbers(first)
        self._on_settled = on_settled
        self._misses = 0

    def _request(self, credit: int) -> tuple[str, Mapping[str, Any]]:
        return "subscribe", {"promise": self.promise, "from": self._numbers.next, "credit": max(credit, 1)}

    def ends_with(self, last_event: int) -> None:
        """The execution is settled with so many events."""
        if self._numbers.next > last_event:
            self._end()

    def _take(self, message: Message) -> None:
        if message.type == "event":
            self._event(event_of(message))
        elif message.type == "gap":
            gap = gap_of(message)
            if gap.number >= self._numbers.next:
                self._numbers.next = gap.number + 1
                self._put(gap, cost=0)
        elif message.type == "subscription_end":
            settlement = Settlement.of_view(message.content.get("promise") or {})
            if settlement is not None:
                self._on_settled(settlement)

    def _event(self, event: Event) -> None:
        admitted = self._numbers.admit(event.number)
        if admitted is None:
            self._misses += 1
            if self._misses > _MISSES_MAX:
                expected = self._numbers.next
                self.fail(ProtocolError(f"event {expected} of {self.promise} does not come; {event.number} does."))
            else:
                self._again()
        elif not admitted:
            self._return(1)
        elif event.kind == "done":
            self._end()
        else:
            self._misses = 0
            self._put(event)


class Execution:
    """Code that was recorded and runs, or ran: whatever becomes of this client and of the connection.

    ``async for event in execution`` gives its events in order, at the reader's pace, each once; `result` reads what is
    left and puts everything together. One reader at a time.
    """

    def __init__(self, client: "Client", promise: str = "", first: int = 1) -> None:
        self._client = client
        self._settled: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
        self._stream = EventStream(client.connection, first, self._settle)
        self._outputs = Outputs()
        self._request: Optional[Request] = None
        self._reading = asyncio.Lock()
        self._stream.promise = promise
        #: How safe it is recorded: ``none``, ``process`` or ``power``.
        self.durability = ""
        #: Whether this very request had been asked for before: it did not run again.
        self.joined = False

    @property
    def promise(self) -> str:
        """Its name, by which anybody can find it again at any time: ``"s7.e3"``."""
        return self._stream.promise

    @property
    def session_id(self) -> str:
        """The session it runs in."""
        return self.promise.partition(".")[0]

    @property
    def is_settled(self) -> bool:
        """Whether it is known to have ended."""
        return self._settled.done()

    # --- Asking ----------------------------------------------------------------------------------------------

    async def start(self, content: Mapping[str, Any], on_input: Optional[OnInput]) -> None:
        """Sends the request; returns when it is recorded, raises what the server says against it."""
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_ack(message: Message) -> None:
            self._stream.promise = str(message.content.get("promise", ""))
            self.durability = str(message.content.get("durability", ""))
            # Said again after a reconnect it has joined itself, which is no news.
            self.joined = bool(message.content.get("joined")) and request.sent == 1
            # From here on it is enough to wait; the events are asked for by the stream.
            request.type, request.content = "promise_wait", {"promise": self.promise}
            request.is_raw, request.on_sent = False, None
            if on_input is not None:
                self._client.add_input(self.promise, on_input)
            if not acknowledged.done():
                acknowledged.set_result(None)

        request = Request("execute_request", content, is_raw=True, on_sent=self._stream.attach, on_notice=on_ack)
        self._request = request
        request.future.add_done_callback(self._replied)
        await self._client.connection.post(request)
        either: set[asyncio.Future[Any]] = {request.future, acknowledged}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            request.future.cancel()
            raise
        if not acknowledged.done():
            self._stream._end()
            raise from_content(request.future.result().content)

    def _replied(self, future: "asyncio.Future[Message]") -> None:
        """The end of the request: a reply, the view of the promise, or the loss of the server."""
        if future.cancelled() or future.exception() is not None:
            return
        message = future.result()
        if message.type == "promise_wait_reply":
            settlement = Settlement.of_view(message.content.get("promise") or {})
            if settlement is not None:
                self._settle(settlement)
        elif self.promise:
            self._settle(Settlement.of_reply(message))

    def _settle(self, settlement: Settlement) -> None:
        self._client.remove_input(self.promise)
        if not self._settled.done():
            self._settled.set_result(settlement)
        if self._request is not None and not self._request.future.done():
            self._request.future.cancel()
        self._stream.ends_with(settlement.last_event)

    # --- Reading ---------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self.next_event()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next_event(self) -> Optional[Event]:
        """The next event; `None` when the last one was read."""
        async with self._reading:
            event = await self._stream.next()
            if event is not None:
                self._outputs.add(event)
            return event

    async def result(self) -> Result:
        """Reads what is left, waits for the end, and puts everything together. It does not raise what the code raised:
        see `Result.error`."""
        while await self.next_event() is not None:
            pass
        return Result(self.promise, await self._settlement(), self._outputs)

    async def wait(self, timeout: Optional[float] = None) -> Settlement:
        """Waits for the end without reading events. `NotSettled` after `timeout` seconds."""
        try:
            return await asyncio.wait_for(self._settlement(), timeout)
        except asyncio.TimeoutError:
            raise NotSettled(f"{self.promise} has not ended within {timeout} s.", code="not_settled") from None

    async def _settlement(self) -> Settlement:
        while not self._settled.done():
            if self._request is None or self._request.future.done():
                request = Request("promise_wait", {"promise": self.promise})
                self._request = request
                request.future.add_done_callback(self._replied)
                await self._client.connection.post(request)
            either: set[asyncio.Future[Any]] = {self._settled, self._request.future}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._settled.done() and not self._request.future.cancelled():
                error = self._request.future.exception()
                if error is not None:
                    raise error
        return self._settled.result()

    # --- Ending ----------------------------------------------------------------------------------------------

    async def cancel(self) -> str:
        """It is not wanted any more: ``"queued"``, and it never runs; or ``"running"``, and it was interrupted."""
        reply = await self._client.connection.request("cancel", {"promise": self.promise})
        return str(reply.content.get("state", ""))

    async def detach(self) -> None:
        """Its events are not wanted any more; it runs on, and `wait` still works."""
        await self._stream.stop()

    def __repr__(self) -> str:
        state = self._settled.result().state if self._settled.done() else "open"
        return f"<Execution {self.promise or '?'} {state}>"


async def ask(on_input: OnInput, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """What to answer to a question of code, as fields of `answer`."""
    try:
        value = await call(on_input, Prompt.of(arguments))
    except EOFError:
        return {"eof": True}
    except Declined as refusal:
        return {"declined": str(refusal) or "declined"}
    except CobError:
        raise
    except Exception as error:
        return {"declined": f"{type(error).__name__}: {error}"}
    return {"value": str(value)}


async def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Calls a function of the user's: one that blocks gets a thread, so that events go on."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments, **named)
    value = await _in_thread(functools.partial(function, *arguments, **named))
    return await value if inspect.isawaitable(value) else value


async def _in_thread(function: Callable[[], Any]) -> Any:
    """On a thread that does not keep the program from ending: it may wait for a person for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: Optional[BaseException]) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def work() -> None:
        value: Any = None
        failure: Optional[BaseException] = None
        try:
            value = context.run(function)
        except StopIteration as error:
            # A future does not take it.
            failure = RuntimeError(f"StopIteration: {error}")
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, value, failure)
        except RuntimeError:
            # The client was closed meanwhile.
            pass

    threading.Thread(target=work, name="cob-client-call", daemon=True).start()
    return await future
