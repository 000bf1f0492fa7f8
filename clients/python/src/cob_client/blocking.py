"""The same without asyncio: every method waits. Behind it runs the asyncio client, on one thread of its own.

All objects may be used from any thread. Functions that are handed over (`on_input`, tools) run on threads, too.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, fields
from typing import Any, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Optional, TypeVar, Union

from .channel import Channel
from .checkpoint import Checkpoint, Checkpoints, CheckpointView, Restoration
from .client import Client
from .errors import ConnectionLost
from .events import Event
from .execution import Execution
from .result import Result, Settlement
from .session import Session

T = TypeVar("T")


class Portal:
    """A thread with an event loop, and the way to it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cob-client", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._is_closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for the coroutine. An exception here (Ctrl-C) cancels it there."""
        with self._lock:
            if self._is_closed:
                work.close()
                raise ConnectionLost("this client is closed.")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Calls it on the thread: objects of asyncio are made there."""

        async def work() -> T:
            return function()

        return self.run(work())

    def close(self) -> None:
        """Ends the thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingExecution:
    """See `cob_client.Execution`."""

    def __init__(self, portal: Portal, inner: Execution) -> None:
        self._portal = portal
        self._inner = inner

    @property
    def promise(self) -> str:
        """Its name: ``"s7.e3"``."""
        return self._inner.promise

    @property
    def joined(self) -> bool:
        """Whether this very request had been asked for before."""
        return self._inner.joined

    @property
    def is_settled(self) -> bool:
        """Whether it is known to have ended."""
        return self._inner.is_settled

    def __iter__(self) -> Iterator[Event]:
        while (event := self._portal.run(self._inner.next_event())) is not None:
            yield event

    def result(self) -> Result:
        """See `cob_client.Execution.result`."""
        return self._portal.run(self._inner.result())

    def wait(self, timeout: Optional[float] = None) -> Settlement:
        """See `cob_client.Execution.wait`."""
        return self._portal.run(self._inner.wait(timeout))

    def cancel(self) -> str:
        """See `cob_client.Execution.cancel`."""
        return self._portal.run(self._inner.cancel())

    def detach(self) -> None:
        """See `cob_client.Execution.detach`."""
        self._portal.run(self._inner.detach())

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._inner)[1:]}"


class BlockingChannel:
    """See `cob_client.Channel`."""

    def __init__(self, portal: Portal, inner: Channel) -> None:
        self._portal = portal
        self._inner = inner
        self.name = inner.name

    def send(self, value: Any) -> int:
        """See `cob_client.Channel.send`."""
        return self._portal.run(self._inner.send(value))

    def recv(self) -> Any:
        """See `cob_client.Channel.recv`."""
        return self._portal.run(self._inner.recv())

    def close(self) -> None:
        """See `cob_client.Channel.close`."""
        self._portal.run(self._inner.close())

    def detach(self) -> None:
        """See `cob_client.Channel.detach`."""
        self._portal.run(self._inner.detach())

    def __iter__(self) -> Iterator[Any]:
        return _each(self._portal, self._inner)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._inner)[1:]}"


@dataclass(frozen=True, repr=False, kw_only=True)
class BlockingCheckpoint(CheckpointView):
    """See `cob_client.Checkpoint`."""

    session: "BlockingSession" = field(compare=False)

    @classmethod
    def of(cls, inner: Checkpoint, session: "BlockingSession") -> "BlockingCheckpoint":
        """The same checkpoint."""
        return cls(**{each.name: getattr(inner, each.name) for each in fields(CheckpointView)}, session=session)

    def restore(self, **options: Any) -> Restoration:
        """See `cob_client.Checkpoint.restore`."""
        return self.session.restore(self, **options)

    def fork(self, n: int = 1, **options: Any) -> "list[BlockingSession]":
        """See `cob_client.Checkpoint.fork`."""
        return self.session.fork(n, checkpoint=self, **options)

    def drop(self) -> None:
        """See `cob_client.Checkpoint.drop`."""
        self.session.drop_checkpoint(self)

    def export(self, path: str) -> int:
        """See `cob_client.Checkpoint.export`."""
        return self.session.export_checkpoint(self, path)


class BlockingSession:
    """See `cob_client.Session`."""

    def __init__(self, portal: Portal, inner: Session) -> None:
        self._portal = portal
        self._inner = inner
        self.id = inner.id

    def __enter__(self) -> "BlockingSession":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._portal.run(self._inner.__aexit__(kind, error, traceback))

    def execute(self, code: str, **options: Any) -> BlockingExecution:
        """See `cob_client.Session.execute`."""
        return BlockingExecution(self._portal, self._portal.run(self._inner.execute(code, **options)))

    def run(self, code: str, *, check: bool = True, **options: Any) -> Result:
        """See `cob_client.Session.run`."""
        return self._portal.run(self._inner.run(code, check=check, **options))

    def interrupt(self) -> None:
        """See `cob_client.Session.interrupt`."""
        self._portal.run(self._inner.interrupt())

    def restart(self) -> None:
        """See `cob_client.Session.restart`."""
        self._portal.run(self._inner.restart())

    def close(self, *, drain: bool = False) -> None:
        """See `cob_client.Session.close`."""
        self._portal.run(self._inner.close(drain=drain))

    def info(self, *, namespace: bool = False) -> Mapping[str, Any]:
        """See `cob_client.Session.info`."""
        return self._portal.run(self._inner.info(namespace=namespace))

    def checkpoint(self, label: Optional[str] = None, **options: Any) -> BlockingCheckpoint:
        """See `cob_client.Session.checkpoint`."""
        return BlockingCheckpoint.of(self._portal.run(self._inner.checkpoint(label, **options)), self)

    def checkpoints(self) -> Checkpoints[BlockingCheckpoint]:
        """See `cob_client.Session.checkpoints`."""
        found = self._portal.run(self._inner.checkpoints())
        return Checkpoints([BlockingCheckpoint.of(each, self) for each in found], found.policy, found.skipped)

    def restore(self, checkpoint: Union[str, CheckpointView], **options: Any) -> Restoration:
        """See `cob_client.Session.restore`."""
        return self._portal.run(self._inner.restore(checkpoint, **options))

    def undo(self, n: int = 1, *, now: bool = False) -> Restoration:
        """See `cob_client.Session.undo`."""
        return self._portal.run(self._inner.undo(n, now=now))

    def fork(self, n: int = 1, **options: Any) -> "list[BlockingSession]":
        """See `cob_client.Session.fork`."""
        return [BlockingSession(self._portal, each) for each in self._portal.run(self._inner.fork(n, **options))]

    def hibernate(self, *, force: bool = False) -> BlockingCheckpoint:
        """See `cob_client.Session.hibernate`."""
        return BlockingCheckpoint.of(self._portal.run(self._inner.hibernate(force=force)), self)

    def drop_checkpoint(self, checkpoint: Union[str, CheckpointView]) -> None:
        """See `cob_client.Session.drop_checkpoint`."""
        self._portal.run(self._inner.drop_checkpoint(checkpoint))

    def export_checkpoint(self, checkpoint: Union[str, CheckpointView], path: str) -> int:
        """See `cob_client.Session.export_checkpoint`."""
        return self._portal.run(self._inner.export_checkpoint(checkpoint, path))

    def import_checkpoint(self, path: str, *, key: Optional[str] = None) -> BlockingCheckpoint:
        """See `cob_client.Session.import_checkpoint`."""
        return BlockingCheckpoint.of(self._portal.run(self._inner.import_checkpoint(path, key=key)), self)

    def complete(self, code: str, cursor_pos: Optional[int] = None) -> Mapping[str, Any]:
        """See `cob_client.Session.complete`."""
        return self._portal.run(self._inner.complete(code, cursor_pos))

    def inspect(self, code: str, cursor_pos: Optional[int] = None, detail_level: int = 0) -> Mapping[str, Any]:
        """See `cob_client.Session.inspect`."""
        return self._portal.run(self._inner.inspect(code, cursor_pos, detail_level))

    def is_complete(self, code: str) -> Mapping[str, Any]:
        """See `cob_client.Session.is_complete`."""
        return self._portal.run(self._inner.is_complete(code))

    def history(self, count: int = 100, *, output: bool = False) -> list[tuple[Any, ...]]:
        """See `cob_client.Session.history`."""
        return self._portal.run(self._inner.history(count, output=output))

    def events(self, from_: int = 1) -> Iterator[Event]:
        """See `cob_client.Session.events`."""
        return _each(self._portal, self._portal.call(lambda: self._inner.events(from_)))

    def channel(self, name: str, from_: int = 1) -> BlockingChannel:
        """See `cob_client.Session.channel`."""
        return BlockingChannel(self._portal, self._portal.call(lambda: self._inner.channel(name, from_)))

    def tool(self, function: Optional[Callable[..., Any]] = None, **options: Any) -> Any:
        """See `cob_client.Session.tool`; the tool is registered on return."""

        def offer(function: Callable[..., Any]) -> Callable[..., Any]:
            self.register_tool(function, **options)
            return function

        return offer if function is None else offer(function)

    def register_tool(self, function: Callable[..., Any], **options: Any) -> None:
        """See `cob_client.Session.register_tool`."""
        self._portal.run(self._inner.register_tool(function, **options))

    def unregister_tool(self, name: str) -> None:
        """See `cob_client.Session.unregister_tool`."""
        self._portal.run(self._inner.unregister_tool(name))

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._inner)[1:]}"


class BlockingClient:
    """See `cob_client.Client`. It is connected; ``with`` or `close` ends it."""

    def __init__(self, inner: Client) -> None:
        self._portal = Portal()
        self._inner = inner
        try:
            self._portal.run(inner.connect())
        except BaseException:
            self._portal.close()
            raise

    def __enter__(self) -> "BlockingClient":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and the thread. Sessions stay."""
        try:
            self._portal.run(self._inner.close())
        except ConnectionLost:
            # It was closed before.
            pass
        self._portal.close()

    @property
    def hello(self) -> Mapping[str, Any]:
        """What the server said of itself."""
        return self._inner.hello

    @property
    def principal(self) -> str:
        """On whose behalf this client asks."""
        return self._inner.principal

    def open_session(self, **options: Any) -> BlockingSession:
        """See `cob_client.Client.open_session`."""
        return BlockingSession(self._portal, self._portal.run(self._inner.open_session(**options)))

    def session(self, session_id: str) -> BlockingSession:
        """See `cob_client.Client.session`."""
        return BlockingSession(self._portal, self._portal.run(self._inner.session(session_id)))

    def sessions(self, *, closed: bool = False) -> list[Mapping[str, Any]]:
        """See `cob_client.Client.sessions`."""
        return self._portal.run(self._inner.sessions(closed=closed))

    def execution(self, promise: str, from_: int = 1) -> BlockingExecution:
        """See `cob_client.Client.execution`."""
        return BlockingExecution(self._portal, self._portal.run(self._inner.execution(promise, from_)))

    def promise(self, promise: Optional[str] = None, **options: Any) -> Mapping[str, Any]:
        """See `cob_client.Client.promise`."""
        return self._portal.run(self._inner.promise(promise, **options))

    def promises(self, session_id: Optional[str] = None, **options: Any) -> list[Mapping[str, Any]]:
        """See `cob_client.Client.promises`."""
        return self._portal.run(self._inner.promises(session_id, **options))

    def answer(self, promise: str, value: Any = None, **options: Any) -> None:
        """See `cob_client.Client.answer`."""
        self._portal.run(self._inner.answer(promise, value, **options))

    def ping(self) -> None:
        """See `cob_client.Client.ping`."""
        self._portal.run(self._inner.ping())

    def server_info(self) -> Mapping[str, Any]:
        """See `cob_client.Client.server_info`."""
        return self._portal.run(self._inner.server_info())

    def metrics(self) -> str:
        """See `cob_client.Client.metrics`."""
        return self._portal.run(self._inner.metrics())

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._inner)[1:]}"


def _each(portal: Portal, items: AsyncIterator[T]) -> Iterator[T]:
    async def following() -> tuple[bool, Any]:
        # StopAsyncIteration does not pass through a coroutine.
        try:
            return True, await items.__anext__()
        except StopAsyncIteration:
            return False, None

    while True:
        goes_on, item = portal.run(following())
        if not goes_on:
            return
        yield item
