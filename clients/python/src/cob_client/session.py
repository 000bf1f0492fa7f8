"""A session: one namespace at the server, which lives on whatever becomes of this client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Mapping, Optional, TypeVar, Union, overload

from .channel import Channel
from .checkpoint import Checkpoint, Checkpoints, CheckpointView, Restoration, id_of, named, view_fields
from .errors import CobError, ExecutionError, NotFound, ProtocolError, SessionClosed
from .events import Event
from .execution import Execution, OnInput
from .result import Result
from .session_events import SessionEvents, SessionStream, mapping
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
        return mapping(reply.content.get("session"))

    # --- Checkpoints -----------------------------------------------------------------------------------------

    async def checkpoint(
        self, label: Optional[str] = None, *, durable: bool = False, force: bool = False
    ) -> Checkpoint:
        """Keeps the session as it is at the next moment at which no code runs: in memory, which takes milliseconds and
        lasts as long as the server's process; with `durable` also in the store.

        `CheckpointRefused` when something of it would be lost, unless it is to be taken all the same (`force`): then its
        `findings` and `missing` say what. Asked for again after a reconnect it may be there twice.
        """
        content = present(session_id=self.id, label=label, durable=durable, force=force)
        return self._checkpoint_of(await self._client.connection.request("checkpoint", content))

    async def checkpoints(self) -> Checkpoints[Checkpoint]:
        """Those that are there, oldest first, with the `policy` of the session, and why the last automatic one was
        `skipped`."""
        reply = await self._client.connection.request("checkpoint_list", {"session_id": self.id})
        views = [Checkpoint(**view_fields(view), session=self) for view in reply.content.get("checkpoints") or ()]
        policy, skipped = reply.content.get("policy"), reply.content.get("skipped")
        return Checkpoints(views, policy if isinstance(policy, Mapping) else {}, skipped)

    async def restore(
        self,
        checkpoint: Union[str, CheckpointView],
        *,
        now: bool = False,
        fresh: bool = False,
        force: bool = False,
    ) -> Restoration:
        """Goes back to a checkpoint: one of `checkpoints`, its name (``"s7.k3"``), or a label, of which the newest counts.

        That happens when the running code has ended; with `now` at once, and what runs or waits is cancelled. Variables of
        one in memory replace everything; those of a durable one are set beside what is there, unless it is restored into a
        `fresh` worker. `force`: also with another interpreter or other packages than it was made with.
        It is not repeated over a reconnect, where other code may have run.
        """
        return await self._restore({**named(checkpoint), "now": now, "fresh": fresh, "force": force})

    async def undo(self, n: int = 1, *, now: bool = False) -> Restoration:
        """Goes back to before the last `n` executions. Needs a checkpoint from then: sessions opened with
        ``checkpoints="auto"`` have the last few. What the code did outside its variables is not undone."""
        return await self._restore({"undo": n, "now": now})

    async def _restore(self, content: Mapping[str, Any]) -> Restoration:
        connection = self._client.connection
        reply = await connection.request("restore", {"session_id": self.id, **content}, repeat=False)
        restoration = Restoration.of(reply.content.get("restored"))
        if restoration is None:
            raise ProtocolError("the server's reply has not the form that was expected.")
        return restoration

    async def fork(
        self,
        n: int = 1,
        *,
        checkpoint: Optional[Union[str, CheckpointView]] = None,
        name: Optional[str] = None,
        key: Optional[str] = None,
        force: bool = False,
    ) -> list["Session"]:
        """`n` new sessions that begin where this one stands at the next moment at which no code runs, or where it stood at
        a `checkpoint` in memory. Always a list, also of one. This session stays as it is.

        With the same `key` they are the same sessions; without one it is still asked safely over reconnects. ``async with``
        closes each as it does one that was opened.
        """
        content = present(
            session_id=self.id,
            checkpoint=None if checkpoint is None else await self._found(checkpoint),
            count=n,
            name=name,
            force=force,
            idempotency_key=key if key is not None else new_id(),
        )
        reply = await self._client.connection.request("fork", content)
        return [Session(self._client, str(branch), is_own=True) for branch in reply.content.get("sessions") or ()]

    async def hibernate(self, *, force: bool = False) -> Checkpoint:
        """Puts everything into the store and gives up the worker and all checkpoints in memory. The next request wakes the
        session up. `CheckpointRefused` when a variable cannot be saved, unless it may be lost (`force`)."""
        content = {"session_id": self.id, "force": force}
        return self._checkpoint_of(await self._client.connection.request("hibernate", content))

    async def drop_checkpoint(self, checkpoint: Union[str, CheckpointView]) -> None:
        """It is not needed any more."""
        connection = self._client.connection
        connections, name = connection.connections, await self._found(checkpoint)
        try:
            await connection.request("checkpoint_delete", {"checkpoint": name})
        except NotFound:
            # Sent again over a reconnect, the first one may have done it.
            if connection.connections == connections:
                raise

    async def export_checkpoint(self, checkpoint: Union[str, CheckpointView], path: str) -> int:
        """Writes a durable one into a file on the server's host; how many bytes it has. For the operator."""
        content = {"checkpoint": await self._found(checkpoint), "path": path}
        reply = await self._client.connection.request("checkpoint_export", content)
        return int(reply.content.get("bytes") or 0)

    async def import_checkpoint(self, path: str, *, key: Optional[str] = None) -> Checkpoint:
        """Takes one in from a file on the server's host. `key`: that of the server that made it, in hexadecimal digits;
        without it only what this server made is taken. Restoring it runs the code in it: take it only from somebody you
        trust. For the operator."""
        content = present(session_id=self.id, path=path, key=key)
        return self._checkpoint_of(await self._client.connection.request("checkpoint_import", content))

    def _checkpoint_of(self, reply: Message) -> Checkpoint:
        return Checkpoint(**view_fields(mapping(reply.content.get("checkpoint"))), session=self)

    async def _found(self, checkpoint: Union[str, CheckpointView]) -> str:
        """The name of a checkpoint that may be given by its label."""
        if "checkpoint" in named(checkpoint):
            return id_of(checkpoint)
        for each in reversed(await self.checkpoints()):
            if each.label == checkpoint:
                return each.id
        raise NotFound(f"{self.id} has no checkpoint with the label {checkpoint!r}.", code="unknown_checkpoint")

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
