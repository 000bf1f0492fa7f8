"""One client's way to its server, across any number of connections.

Requests wait here for their replies. When a connection ends, another is made and everything that is outstanding is
sent again: every request that changes something carries a key or a number by which the server knows it.

**Invariant:** a request is in `_pending` from `submit` until its future is done, connected or not.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any, Callable, Coroutine, Mapping, Optional, Protocol

import zmq.asyncio

from .backoff import Backoff, Patience
from .discovery import Target
from .errors import CobError, ConnectionLost, LimitReached, ServerNotFound, from_content
from .link import Link, LinkLost
from .wire import Message, new_id

#: Versions of the agent protocol that this package speaks.
VERSIONS = (1,)
#: They overtake data at the server, so they do not wait for room here either.
CONTROL = frozenset(
    (
        "ping interrupt cancel restart restore answer credit unsubscribe "
        "promise_get session_info checkpoint_list server_info metrics"
    ).split()
)
#: Data requests outstanding at once; the server takes 1024 of one peer.
OUTSTANDING_MAX = 900
#: Refusals that mean: the same again, a little later.
_LATER = frozenset(["busy", "store_busy"])
#: Refusals that mean: the same again, on another connection.
_ELSEWHERE = frozenset(["not_greeted", "shutting_down"])


@dataclasses.dataclass(frozen=True)
class Options:
    """How a connection behaves. All times are seconds."""

    #: On whose behalf; absent: `local`, or what the key says.
    principal: Optional[str] = None
    #: What the client is, for the server's logs.
    name: str = "cob-client"
    #: For a server that has gone.
    patience: Patience = Patience()
    #: For a server that is not there at the start.
    wait: float = 0.0
    #: For one that says `busy`.
    busy_patience: Patience = Patience(first=0.1, longest=2.0, total=60.0)
    #: For the reply to hello.
    hello_timeout: float = 5.0
    #: A server that owes something and is silent for so long is asked whether it is there; if it says nothing for as
    #: long again, it is not.
    heartbeat: float = 5.0
    #: Events under way per subscription.
    window: int = 256


class Resumable(Protocol):
    """What lives on through reconnects: subscriptions, tools."""

    def resume(self) -> None:
        """There is a new connection."""

    def fail(self, error: CobError) -> None:
        """There will be none."""


class Request:
    """A request and its reply to come."""

    def __init__(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        repeat: bool = True,
        is_raw: bool = False,
        on_sent: Optional[Callable[[str], None]] = None,
        on_notice: Optional[Callable[[Message], None]] = None,
    ) -> None:
        self.type = msg_type
        self.content = content
        #: Whether it may be sent again when nobody knows whether it arrived.
        self.repeat = repeat
        #: Whether replies with an error are replies too.
        self.is_raw = is_raw
        self.on_sent = on_sent
        self.on_notice = on_notice
        self.noticed = False
        self.msg_id = new_id()
        self.sent = 0
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.backoff: Optional[Backoff] = None
        self.timer: Optional[asyncio.TimerHandle] = None


class Connection:
    """See the module."""

    def __init__(self, target: Target, options: Options) -> None:
        self.options = options
        #: This client's own name, on every connection of its life.
        self.identity = new_id()
        #: What the server said of itself in reply to the last hello.
        self.hello: Mapping[str, Any] = {}
        #: How many connections there were.
        self.connections = 0
        #: Handlers of messages by subscription; forgotten with each connection.
        self.routes: dict[str, Callable[[Message], None]] = {}
        self.resumables: dict[int, Resumable] = {}
        self.on_call: Callable[[Message], None] = lambda message: None
        #: Whether a silent server matters although it owes nothing: code may call us.
        self.is_serving: Callable[[], bool] = lambda: False
        self._target = target
        self._context = zmq.asyncio.Context()
        self._pending: dict[str, Request] = {}
        self._room = asyncio.Semaphore(OUTSTANDING_MAX)
        self._link: Optional[Link] = None
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._runner: Optional[asyncio.Task[None]] = None
        self._greeted_at = 0.0
        self._is_closed = False

    # --- Life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Makes the first connection."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._runner = asyncio.ensure_future(self._run(first))
        try:
            await first
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends the connection. Code goes on running; what is outstanding fails here."""
        if self._is_closed:
            return
        self._is_closed = True
        self._give_up(ConnectionLost("this client is closed."))
        tasks = [*self._tasks, *([self._runner] if self._runner else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._context.destroy(linger=0)

    @property
    def is_connected(self) -> bool:
        """Whether the server has greeted us on the connection that stands."""
        return self._link is not None

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs something on the side, at most until the end of this client."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- Requests --------------------------------------------------------------------------------------------

    async def request(
        self, msg_type: str, content: Optional[Mapping[str, Any]] = None, *, repeat: bool = True
    ) -> Message:
        """Asks, and waits for the reply; a refusal is raised."""
        return await self.submit(Request(msg_type, content or {}, repeat=repeat))

    async def submit(self, request: Request) -> Message:
        """As `request`, of one made before."""
        await self.post(request)
        try:
            return await request.future
        finally:
            request.future.cancel()

    async def post(self, request: Request) -> None:
        """Sends a request, or keeps it for the next connection. Waits only if far too much is outstanding."""
        if request.type not in CONTROL:
            await self._room.acquire()
            request.future.add_done_callback(lambda _: self._room.release())
        request.future.add_done_callback(lambda _: self._forget(request))
        if self._is_closed:
            request.future.set_exception(ConnectionLost("this client is closed."))
            return
        self._pending[request.msg_id] = request
        self._wanted.set()
        self._send(request)

    def tell(self, msg_type: str, content: Mapping[str, Any]) -> None:
        """Sends what has no reply, if there is a connection."""
        if self._link is not None:
            self._link.send(msg_type, new_id(), content)

    def _send(self, request: Request) -> None:
        if self._link is None or request.future.done():
            return
        if request.sent:
            # Ids are unique per message; the key in its content is what makes it the same request.
            self._pending.pop(request.msg_id, None)
            request.msg_id = new_id()
            self._pending[request.msg_id] = request
        self._cancel_timer(request)
        request.sent += 1
        if request.on_sent is not None:
            request.on_sent(request.msg_id)
        try:
            self._link.send(request.type, request.msg_id, request.content)
        except (TypeError, ValueError, LimitReached) as error:
            request.future.set_exception(error)

    def _forget(self, request: Request) -> None:
        self._pending.pop(request.msg_id, None)
        self._cancel_timer(request)
        if not request.future.cancelled():
            # Some are waited for by nobody.
            request.future.exception()

    @staticmethod
    def _cancel_timer(request: Request) -> None:
        if request.timer is not None:
            request.timer.cancel()
            request.timer = None

    # --- What comes in ---------------------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        if message.type == "call":
            self.on_call(message)
        elif message.type.endswith("_reply"):
            request = self._pending.get(message.parent_id)
            if request is not None and not request.future.done():
                self._settle(request, message)
        elif message.type == "ack":
            request = self._pending.get(message.parent_id)
            if request is not None and request.on_notice is not None:
                request.noticed = True
                request.on_notice(message)
        elif route := self.routes.get(str(message.content.get("subscription"))):
            route(message)

    def _settle(self, request: Request, message: Message) -> None:
        # An execution that is recorded may end with an error: that is its result.
        if message.content.get("status") != "error" or (request.noticed and message.type == "execute_reply"):
            request.future.set_result(message)
            return
        error = from_content(message.content)
        if error.code in _LATER and self._try_later(request, error):
            return
        if error.code in _ELSEWHERE and request.repeat and self._link is not None:
            self._link.close_soon(error.message)
            return
        if request.is_raw:
            request.future.set_result(message)
        else:
            request.future.set_exception(error)

    def _try_later(self, request: Request, error: CobError) -> bool:
        if request.backoff is None:
            request.backoff = Backoff(self.options.busy_patience)
        pause = request.backoff.next(at_least=error.retry_after or 0.0)
        if pause is None:
            return False
        request.timer = asyncio.get_running_loop().call_later(pause, self._send, request)
        return True

    # --- One connection after the other ----------------------------------------------------------------------

    async def _run(self, first: asyncio.Future[None]) -> None:
        backoff = Backoff(dataclasses.replace(self.options.patience, total=self.options.wait))
        quick = 0
        while True:
            before = self.connections
            try:
                await self._serve(first)
            except (LinkLost, ServerNotFound) as error:
                reason: Exception = error
            except Exception as error:
                # It would not go better another time: refused for good, or the keys are no keys.
                failure = error if isinstance(error, CobError) else CobError(f"{type(error).__name__}: {error}")
                if not first.done():
                    first.set_exception(failure)
                    return
                self._give_up(failure)
                backoff = await self._until_wanted()
                continue
            if self.connections > before:
                # A server that greets and goes is not asked without pause.
                quick = quick + 1 if time.monotonic() - self._greeted_at < self.options.patience.longest else 0
                backoff = Backoff(self.options.patience, attempt=quick)
            pause = backoff.next()
            if pause is not None:
                await asyncio.sleep(pause)
            elif not first.done():
                first.set_exception(_not_found(reason))
                return
            else:
                self._give_up(ConnectionLost(f"the server did not come back: {reason}", hint="Is `cob serve` running?"))
                backoff = await self._until_wanted()

    async def _until_wanted(self) -> Backoff:
        self._wanted.clear()
        await self._wanted.wait()
        return Backoff(self.options.patience)

    async def _serve(self, first: asyncio.Future[None]) -> None:
        link = Link(self._context, self._target.resolve(), self.identity)
        tasks: list[asyncio.Task[None]] = []
        try:
            link.connect()
            tasks.append(asyncio.ensure_future(link.run(self._receive)))
            self.hello = await self._greet(link, tasks[0])
            link.message_bytes_max = self.hello.get("limits", {}).get("message_bytes_max")
            self.connections += 1
            self._greeted_at = time.monotonic()
            self._link = link
            for request in list(self._pending.values()):
                self._send(request)
            for resumable in list(self.resumables.values()):
                resumable.resume()
            if not first.done():
                first.set_result(None)
            tasks.append(asyncio.ensure_future(self._heartbeat(link)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._link = None
            self.routes.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            link.close()
            self._drop_unrepeatable()

    async def _greet(self, link: Link, running: asyncio.Task[None]) -> Mapping[str, Any]:
        content: dict[str, Any] = {"versions": list(VERSIONS), "client": self.options.name}
        if self.options.principal is not None:
            content["principal"] = self.options.principal
        request = Request("hello_request", content, repeat=False, is_raw=True)
        self._pending[request.msg_id] = request
        try:
            link.send(request.type, request.msg_id, content)
            tasks: set[asyncio.Future[Any]] = {running, request.future}
            timeout = self.options.hello_timeout
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            if not request.future.done():
                wrong = " (a wrong key gets no answer)" if link.address.key else ""
                raise LinkLost(f"no hello from {link.address.url} within {timeout:g} s{wrong}")
            reply = request.future.result()
            if reply.content.get("status") == "error":
                error = from_content(reply.content)
                raise LinkLost(str(error)) if error.code in _LATER | _ELSEWHERE else error
            return reply.content
        finally:
            self._pending.pop(request.msg_id, None)

    async def _heartbeat(self, link: Link) -> None:
        """Ends with `LinkLost` when the server owes something and is silent."""
        interval = self.options.heartbeat
        asked_at: Optional[float] = None
        while True:
            now = time.monotonic()
            if asked_at is not None and link.heard_at < asked_at <= now - interval:
                raise LinkLost(f"nothing was heard of {link.address.url} for {now - link.heard_at:.1f} s")
            if now - link.heard_at >= interval and (self._pending or self.routes or self.is_serving()):
                if asked_at is None or link.heard_at >= asked_at:
                    asked_at = now
                    link.send("ping", new_id(), {})
            await asyncio.sleep(interval / 2)

    def _drop_unrepeatable(self) -> None:
        for request in list(self._pending.values()):
            if request.sent and not request.repeat and not request.future.done():
                sentence = f"the connection ended before `{request.type}` was answered."
                request.future.set_exception(ConnectionLost(sentence, hint="Nobody knows whether it was done."))

    def _give_up(self, error: CobError) -> None:
        for request in list(self._pending.values()):
            if not request.future.done():
                request.future.set_exception(error)
        for resumable in list(self.resumables.values()):
            resumable.fail(error)


def _not_found(reason: Exception) -> CobError:
    if isinstance(reason, CobError):
        return reason
    return ServerNotFound(f"{reason}.", hint="Start one with `cob serve`, or name it in COB_SERVER.")
