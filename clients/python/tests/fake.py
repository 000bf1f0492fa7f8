"""A server that does what a test tells it: for what a real one cannot be made to do, such as losing a reply.

Handlers are per message type: they get the request and say what is sent back with `say`.
"""
import asyncio
import json
import os

import zmq
import zmq.asyncio

from cob_client.wire import Codec, new_id


class Got:
    """A request as it arrived."""

    def __init__(self, server, identity, message):
        self.server = server
        self.identity = identity
        self.header = message.header
        self.id = message.header["msg_id"]
        self.type = message.type
        self.content = message.content

    def say(self, msg_type, content, metadata=None):
        self.server.send(self.identity, msg_type, content, self.header, metadata)

    def reply(self, **content):
        self.say(f"{self.type.removesuffix('_request')}_reply", {"status": "ok", **content})

    def refuse(self, code, **content):
        self.reply(**{"status": "error", "ename": code, "evalue": f"{code}!", "code": code, "hint": "h", **content})

    def event(self, promise, number, text="", kind="stream", subscription=None):
        content = {"name": "stdout", "text": text} if kind == "stream" else {}
        self.say("event", {"subscription": subscription or self.id, "promise": promise, "number": number, "at": "t",
                           "kind": kind, "content": content})

    def ack(self, promise, joined=False):
        self.say("ack", {"promise": promise, "durability": "process", "joined": joined})

    def done(self, promise, last, **content):
        cob = {"promise": promise, "state": "resolved", "last_event": last, "session_state": "kept"}
        self.say("execute_reply", {"status": "ok", "execution_count": 1, **content}, {"cob": cob})


def greet(got):
    got.reply(version=1, server={"name": "fake"}, principal="local", features=[],
              limits={"message_bytes_max": 100_000})


class Fake:
    """See the module. `handlers` may be changed at any time; what has none is kept in `got` and not answered."""

    def __init__(self, folder):
        self.file = f"{folder}/server.json"
        self._folder = folder
        self._starts = 0
        self.handlers = {"hello_request": greet, "ping": Got.reply, "unsubscribe": Got.reply}
        self.got = []
        self._arrived = asyncio.Event()
        self._context = zmq.asyncio.Context()
        self._codec = Codec(b"", "fake")
        self._socket = self._task = None

    async def __aenter__(self):
        self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()
        self._context.destroy(linger=0)

    def start(self):
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        # Each start has an address of its own: that of the one before is removed by libzmq when it pleases.
        self._starts += 1
        url = f"ipc://{self._folder}/{self._starts}"
        self._socket.bind(url)
        with open(f"{self.file}.new", "w") as file:
            json.dump({"ipc": url}, file)
        os.rename(f"{self.file}.new", self.file)
        self._task = asyncio.ensure_future(self._serve())

    async def stop(self):
        """As if it were killed."""
        if self._socket is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._socket.close(linger=0)
            self._socket = None

    async def restart(self):
        await self.stop()
        self.start()

    async def wait_for(self, msg_type, count=1):
        """The last of `count` requests of this type, once it has come."""
        while len(found := [got for got in self.got if got.type == msg_type]) < count:
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 20)
        return found[count - 1]

    def send(self, identity, msg_type, content, parent, metadata):
        parts = self._codec.write(msg_type, new_id(), content)
        parts[3], parts[4] = json.dumps(parent).encode(), json.dumps(metadata or {}).encode()
        self._socket.send_multipart([identity, *parts], flags=zmq.NOBLOCK)

    async def _serve(self):
        while True:
            identity, *parts = await self._socket.recv_multipart()
            got = Got(self, identity, self._codec.read(parts))
            self.got.append(got)
            self._arrived.set()
            if handler := self.handlers.get(got.type):
                handler(got)
