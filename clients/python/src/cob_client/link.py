"""One connection: a DEALER socket from its connect to its end. It never comes back; `connection` makes another.

**Invariant:** after `close` nothing is received any more, and sending does nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Callable, Mapping, Optional

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from .discovery import Address
from .errors import LimitReached, ProtocolError
from .wire import Codec, Message

_ENDS = (
    zmq.EVENT_DISCONNECTED,
    zmq.EVENT_CLOSED,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
)


class LinkLost(Exception):
    """The connection has ended, or never began."""


class Link:
    """See the module."""

    def __init__(self, context: zmq.asyncio.Context, address: Address, identity: str) -> None:
        self.address = address
        #: When something was last received, by the monotonic clock.
        self.heard_at = time.monotonic()
        #: What the server takes in one message; `None` until it has said so.
        self.message_bytes_max: Optional[int] = None
        self._codec = Codec(address.key, identity)
        self._socket: zmq.asyncio.Socket = context.socket(zmq.DEALER)
        try:
            self._configure(identity)
        except BaseException:
            self._socket.close(linger=0)
            raise
        self._monitor = self._socket.get_monitor_socket()
        self._is_closed = False
        self._wanted_end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _configure(self, identity: str) -> None:
        # The server finds this client again under this name: questions of code that it runs are put to it.
        self._socket.setsockopt(zmq.ROUTING_ID, identity.encode())
        self._socket.setsockopt(zmq.LINGER, 0)
        # libzmq would reconnect behind our back, and the server wants a hello first.
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        # How much is outstanding is bounded by `connection`; the socket must never make it wait or lose anything.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        if (curve := self.address.curve) is not None:
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server.encode())
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public.encode())
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret.encode())

    def send(self, msg_type: str, msg_id: str, content: Mapping[str, Any]) -> None:
        """Sends at once, or not at all if the connection has ended: whoever waits sends again on the next one."""
        parts = self._codec.write(msg_type, msg_id, content)
        size = sum(len(part) for part in parts)
        if self.message_bytes_max is not None and size > self.message_bytes_max:
            # The server would end the connection, and this client would send it again on the next one.
            raise LimitReached(
                f"a `{msg_type}` of {size} bytes is more than the {self.message_bytes_max} that the server takes",
                code="request_too_large",
                hint="Send the data in smaller pieces, or let the code read it from a file.",
            )
        if not self._is_closed:
            # Done at once. It fails when the peer has just gone, which `run` is about to notice.
            sent: Any = self._socket.send_multipart(parts, flags=zmq.NOBLOCK)
            sent.exception()

    def connect(self) -> None:
        """Begins to connect: from here on something can be sent."""
        try:
            self._socket.connect(self.address.url)
        except zmq.ZMQError as error:
            raise LinkLost(f"cannot connect to {self.address.url}: {error}") from error

    async def run(self, receive: Callable[[Message], None]) -> None:
        """Hands on what is received; ends with `LinkLost`."""
        tasks = [asyncio.ensure_future(work) for work in (self._read(receive), self._watch(), self._until_unwanted())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, receive: Callable[[Message], None]) -> None:
        while True:
            parts = await self._socket.recv_multipart()
            self.heard_at = time.monotonic()
            try:
                message = self._codec.read(parts)
            except ProtocolError:
                # As the server does: what cannot be believed is dropped.
                continue
            receive(message)

    async def _watch(self) -> None:
        while True:
            event = (await recv_monitor_message(self._monitor))["event"]
            if event in _ENDS:
                raise LinkLost(f"the connection to {self.address.url} has ended")

    async def _until_unwanted(self) -> None:
        await self._wanted_end

    def close_soon(self, reason: str) -> None:
        """Makes `run` end as if the server had gone."""
        if not self._wanted_end.done():
            self._wanted_end.set_exception(LinkLost(reason))

    def close(self) -> None:
        """Closes the socket. What was not sent yet is not sent."""
        if not self._is_closed:
            self._is_closed = True
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)
