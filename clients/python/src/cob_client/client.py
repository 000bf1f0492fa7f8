"""A client of `cob serve`: opens sessions, comes back to them, and asks for promises."""

from __future__ import annotations

from typing import Any, Generator, Mapping, Optional, Sequence, Union

from .connection import Connection, Options
from .discovery import Target
from .errors import AlreadySettled, CobError, NotFound, SessionClosed
from .execution import Execution, OnInput, ask
from .session import Session, milliseconds, present
from .tools import Tool, failure_of
from .wire import Message, new_id

#: Questions that are kept for executions that are not known yet.
_UNCLAIMED_MAX = 64


def _folders(folders: Union[str, Sequence[str]]) -> list[str]:
    """A text is one folder: as a sequence of its characters it would permit ``/``, which is everything."""
    return [folders] if isinstance(folders, str) else list(folders)


class Client:
    """One client. ``async with connect() as client`` or ``client = await connect()`` connects it."""

    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._options = options
        self._connection: Optional[Connection] = None
        self._inputs: dict[str, OnInput] = {}
        self._tools: dict[str, dict[str, Tool]] = {}
        #: Questions of executions that are not known here yet: the last few, by execution.
        self._unclaimed: dict[str, Mapping[str, Any]] = {}
        #: Calls that are being answered: one may be put to us twice.
        self._answering: set[str] = set()

    async def connect(self) -> "Client":
        """Connects; `ServerNotFound` when there is no server (see `wait` of `cob_client.connect`)."""
        connection = Connection(self._target, self._options)
        connection.on_call = self._on_call
        connection.is_serving = lambda: any(self._tools.values())
        connection.resumables[id(self)] = self
        await connection.start()
        self._connection = connection
        return self

    def __await__(self) -> Generator[Any, None, "Client"]:
        return self.connect().__await__()

    async def __aenter__(self) -> "Client":
        return await self.connect()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection. Sessions and what runs in them stay."""
        if self._connection is not None:
            await self._connection.close()

    @property
    def connection(self) -> Connection:
        """The way to the server."""
        if self._connection is None:
            raise RuntimeError("this client is not connected: use `async with connect()` or `await connect()`")
        return self._connection

    @property
    def hello(self) -> Mapping[str, Any]:
        """What the server said of itself: `server`, `principal`, `features`, `limits`."""
        return self.connection.hello

    @property
    def principal(self) -> str:
        """On whose behalf this client asks."""
        return str(self.hello.get("principal", ""))

    # --- Sessions --------------------------------------------------------------------------------------------

    async def open_session(
        self,
        *,
        language: str = "python",
        python: Optional[str] = None,
        permissions: Optional[Mapping[str, Union[str, Sequence[str]]]] = None,
        cwd: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        limits: Optional[str] = None,
        name: Optional[str] = None,
        idle_timeout: Optional[float] = None,
        interrupt_grace: Optional[float] = None,
        durability: Optional[str] = None,
        checkpoints: Optional[Union[str, Mapping[str, Any]]] = None,
        key: Optional[str] = None,
    ) -> Session:
        """Begins a session, or finds the one that was begun with the same `key`.

        `language` is ``"python"`` or ``"javascript"``, which runs TypeScript as well. `python` is the interpreter of a
        session in Python. Code in JavaScript reaches the files that `permissions` name and no others:
        ``{"read": [folders], "write": [folders]}``, where ``"."`` is its working directory. `limits` are written as on the
        command line (``"memory=2G,time=30s"``), times are in seconds. `checkpoints` is ``"auto"`` (one between any two executions), ``"manual"``, ``"off"``, or a policy as the
        protocol has it: `mode`, `keep`, `budget_bytes`, `recover`, `hibernate_after_ms`, `durable_every_ms`. What is not
        given is the server's choice.
        """
        content = present(
            language=language,
            environment=present(
                python=python,
                permissions={kind: _folders(those) for kind, those in permissions.items()} if permissions is not None else None,
                cwd=cwd,
                env=dict(env) if env is not None else None,
            ),
            limits=limits,
            name=name,
            idle_timeout_ms=milliseconds(idle_timeout),
            interrupt_grace_ms=milliseconds(interrupt_grace),
            durability=durability,
            checkpoints=checkpoints,
            idempotency_key=key if key is not None else new_id(),
        )
        reply = await self.connection.request("session_open", content)
        return Session(self, str(reply.content.get("session_id")), is_own=True)

    async def session(self, session_id: str) -> Session:
        """A session that is there, by its name. ``async with`` does not close it."""
        session = Session(self, session_id, is_own=False)
        await session.info()
        return session

    async def sessions(self, *, closed: bool = False) -> list[Mapping[str, Any]]:
        """All sessions that one may see, `closed` ones too if asked for."""
        views: list[Mapping[str, Any]] = []
        while True:
            after = views[-1].get("session_id") if views else None
            reply = await self.connection.request("session_list", present(closed=closed, after=after))
            page = reply.content.get("sessions") or []
            views += page
            # Only an empty page is certain to be behind the last one.
            if not page:
                return views

    # --- Promises --------------------------------------------------------------------------------------------

    async def execution(self, promise: str, from_: int = 1) -> Execution:
        """An execution that was asked for before, by whomever; its events are read from number `from_` on."""
        await self.promise(promise)
        return Execution(self, promise, from_)

    async def promise(
        self, promise: Optional[str] = None, *, session_id: Optional[str] = None, key: Optional[str] = None
    ) -> Mapping[str, Any]:
        """How a promise stands: by its name, or by session and the key of the request."""
        content = present(promise=promise, session_id=session_id, idempotency_key=key)
        reply = await self.connection.request("promise_get", content)
        view = reply.content.get("promise")
        return view if isinstance(view, Mapping) else {}

    async def promises(
        self, session_id: Optional[str] = None, *, kind: Optional[str] = None, settled: Optional[bool] = None
    ) -> list[Mapping[str, Any]]:
        """Promises that one may see, of a session, of a `kind` (``"execution"``, ``"call"``), `settled` or not."""
        views: list[Mapping[str, Any]] = []
        while True:
            after = views[-1].get("promise") if views else None
            content = present(session_id=session_id, kind=kind, settled=settled, after=after)
            reply = await self.connection.request("promise_list", content)
            page = reply.content.get("promises") or []
            views += page
            if not page:
                return views

    async def answer(
        self,
        promise: str,
        value: Any = None,
        *,
        eof: bool = False,
        declined: Optional[str] = None,
        error: Optional[BaseException] = None,
    ) -> None:
        """Answers a call of code: with a value, with the end of input, with a refusal, or with an error of a tool.
        `AlreadySettled` when somebody was first."""
        if eof:
            given: Mapping[str, Any] = {"eof": True}
        elif declined is not None:
            given = {"declined": declined}
        else:
            given = failure_of(error) if error is not None else {"value": value}
        await self._answer(promise, given)

    async def _answer(self, promise: str, given: Mapping[str, Any]) -> None:
        connections = self.connection.connections
        try:
            await self.connection.request("answer", {"promise": promise, **given})
        except AlreadySettled:
            # Sent again over a reconnect, the first one may have been ours.
            if self.connection.connections == connections:
                raise

    # --- The server ------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Returns when the server has answered."""
        await self.connection.request("ping")

    async def server_info(self) -> Mapping[str, Any]:
        """What the server holds and does."""
        return (await self.connection.request("server_info")).content

    async def metrics(self) -> str:
        """The same for Prometheus."""
        return str((await self.connection.request("metrics")).content.get("text", ""))

    # --- Calls of code ---------------------------------------------------------------------------------------

    def add_input(self, promise: str, on_input: OnInput) -> None:
        """Questions of this execution are put to `on_input`."""
        self._inputs[promise] = on_input
        if (question := self._unclaimed.pop(promise, None)) is not None:
            self._put(question)

    def remove_input(self, promise: str) -> None:
        """Not any more."""
        self._inputs.pop(promise, None)

    async def offer(self, session_id: str, tool: Tool) -> None:
        """Registers a tool; see `Session.register_tool`."""
        tools = self._tools.setdefault(session_id, {})
        before = tools.get(tool.name)
        tools[tool.name] = tool
        try:
            await self._announce(session_id, [tool])
        except CobError:
            if before is None:
                tools.pop(tool.name, None)
            else:
                tools[tool.name] = before
            raise

    async def withdraw(self, session_id: str, name: str) -> None:
        """Unregisters a tool."""
        self._tools.get(session_id, {}).pop(name, None)
        await self.connection.request("tool_unregister", {"session_id": session_id, "names": [name]})

    def forget_tools(self, session_id: str) -> None:
        """The session ends."""
        self._tools.pop(session_id, None)

    async def _announce(self, session_id: str, tools: Sequence[Tool]) -> None:
        content = {"session_id": session_id, "tools": [tool.announcement() for tool in tools]}
        await self.connection.request("tool_register", content)

    def resume(self) -> None:
        """There is a new connection: tools are offered on it, and questions that are open are looked for."""
        if self._connection is None:
            return
        for session_id, tools in self._tools.items():
            if tools:
                self._connection.spawn(self._announce_again(session_id, list(tools.values())))
        for promise in list(self._inputs):
            self._connection.spawn(self._find_questions(promise))

    def fail(self, error: CobError) -> None:
        """There is none: tools are offered on the next one."""

    async def _announce_again(self, session_id: str, tools: Sequence[Tool]) -> None:
        try:
            await self._announce(session_id, tools)
        except (SessionClosed, NotFound):
            self.forget_tools(session_id)
        except CobError:
            # Given up with everything else; the next connection tries again.
            pass

    async def _find_questions(self, execution: str) -> None:
        try:
            for view in await self.promises(execution.partition(".")[0], kind="call", settled=False):
                promise = str(view.get("promise", ""))
                if promise.startswith(f"{execution}.") and isinstance(view.get("request"), Mapping):
                    self._put({**view["request"], "promise": promise, "execution": execution})
        except CobError:
            pass

    def _on_call(self, message: Message) -> None:
        self._put(message.content)

    def _put(self, content: Mapping[str, Any]) -> None:
        promise = str(content.get("promise", ""))
        if promise and promise not in self._answering:
            self._answering.add(promise)
            self.connection.spawn(self._call(promise, content))

    async def _call(self, promise: str, content: Mapping[str, Any]) -> None:
        """Answers one call of code, if that is ours to do."""
        try:
            given = await self._given(content)
            if given is not None:
                await self._deliver(promise, given)
        except CobError:
            # Somebody else has answered, or nobody waits for it any more, or the server is gone for good: then the call
            # is still open, and put to us again.
            pass
        finally:
            self._answering.discard(promise)

    async def _given(self, content: Mapping[str, Any]) -> Optional[Mapping[str, Any]]:
        arguments = content.get("arguments")
        arguments = arguments if isinstance(arguments, Mapping) else {}
        if content.get("kind") == "input":
            execution = str(content.get("execution", ""))
            on_input = self._inputs.get(execution)
            if on_input is not None:
                return await ask(on_input, arguments)
            if len(self._unclaimed) >= _UNCLAIMED_MAX:
                self._unclaimed.pop(next(iter(self._unclaimed)))
            self._unclaimed[execution] = content
            return None
        session_id = str(content.get("session_id") or str(content.get("promise", "")).partition(".")[0])
        tool = self._tools.get(session_id, {}).get(str(arguments.get("name", "")))
        if tool is None:
            return None
        named = arguments.get("arguments")
        return await tool.answer(named if isinstance(named, Mapping) else {})

    async def _deliver(self, promise: str, given: Mapping[str, Any]) -> None:
        try:
            await self._answer(promise, given)
        except (TypeError, ValueError) as error:
            # What the function returned is no JSON: its caller is told so.
            await self._answer(promise, failure_of(error))

    def __repr__(self) -> str:
        if self._connection is None:
            return "<Client, not connected>"
        state = "connected" if self._connection.is_connected else "reconnecting"
        return f"<Client {self.principal} {state}>"
