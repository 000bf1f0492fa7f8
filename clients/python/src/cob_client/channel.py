"""Durable channels: JSON values between code in a session and its client, each once and in order."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator, Mapping, Optional

from .connection import Connection
from .errors import AlreadySettled, CobError
from .stream import Numbers, Stream
from .wire import Message


class ChannelStream(Stream[Any]):
    """What the code sends."""

    def __init__(self, connection: Connection, session_id: str, name: str, first: int) -> None:
        super().__init__(connection)
        self._place = {"session_id": session_id, "channel": name}
        self.numbers = Numbers(first)
        #: The number that the next item to the code has, known once it is open.
        self._outgoing: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def _request(self, credit: int) -> tuple[str, Mapping[str, Any]]:
        return "channel_open", {**self._place, "from": self.numbers.next, "credit": max(credit, 1)}

    def _opened(self, reply: Message) -> None:
        if not self._outgoing.done():
            self._outgoing.set_result(int(reply.content.get("next") or 1))

    def fail(self, error: CobError) -> None:
        super().fail(error)
        waiting, self._outgoing = self._outgoing, asyncio.get_running_loop().create_future()
        if waiting.done():
            self._outgoing = waiting
        else:
            waiting.set_exception(error)
            # Perhaps nobody waits.
            waiting.exception()

    async def next_outgoing(self) -> int:
        """The number that the next item to the code has."""
        return await asyncio.shield(self._outgoing)

    def _take(self, message: Message) -> None:
        content = message.content
        if message.type == "gap":
            self.numbers.next = max(self.numbers.next, int(content.get("next", 0)))
        elif message.type == "channel_data":
            admitted = self.numbers.admit(int(content.get("number", 0)))
            if admitted is None:
                self._again()
            elif not admitted:
                self._return(1)
            else:
                self._put(content.get("data"))


class Channel:
    """One channel: ``async for item in channel`` reads what the code sends, `send` is read by it with ``recv``.

    One program writes to a channel at a time; any number of them may read.
    """

    def __init__(self, connection: Connection, session_id: str, name: str, first: int = 1) -> None:
        #: Its name.
        self.name = name
        self._connection = connection
        self._place = {"session_id": session_id, "channel": name}
        self._stream = ChannelStream(connection, session_id, name, first)
        self._sending = asyncio.Lock()
        self._next: Optional[int] = None

    @property
    def next_number(self) -> int:
        """The number of the next item that is read: a program that comes back opens the channel from there."""
        return self._stream.numbers.next - self._stream.waiting

    async def send(self, value: Any) -> int:
        """An item for the code; returns its number when it is recorded. Sent again after a reconnect it is there once."""
        async with self._sending:
            if self._next is None:
                self._next = await self._first_number()
            while True:
                content = {**self._place, "number": self._next, "data": value}
                try:
                    await self._connection.request("channel_data", content)
                except AlreadySettled:
                    # Somebody else's item has this number.
                    self._next += 1
                    continue
                self._next += 1
                return self._next - 1

    async def _first_number(self) -> int:
        self._stream.open()
        return await self._stream.next_outgoing()

    async def recv(self) -> Any:
        """The next item that the code sent; `EOFError` when there will be none."""
        async for item in self:
            return item
        raise EOFError(f"the channel {self.name} has ended")

    async def close(self) -> None:
        """The code gets no more items: its ``recv`` ends. What it sends can still be read."""
        await self._connection.request("channel_close", self._place)

    async def detach(self) -> None:
        """What the code sends is not read any more."""
        await self._stream.stop()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        entry = await self._stream.next_entry()
        if entry is None:
            raise StopAsyncIteration
        return entry[0]

    def __repr__(self) -> str:
        return f"<Channel {self.name} of {self._place['session_id']}>"
