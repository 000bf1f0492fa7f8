"""A Jupyter front end that believes nothing.

It speaks over raw ZeroMQ sockets and checks every message it receives: the
signature, the specification (spec.py), the parent, and the pairing of busy and
idle. Tests wait for messages, never for time.
"""
import hashlib
import hmac
import itertools
import json
import time
import uuid
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone

import zmq

from support.outputs import Outputs
from support.spec import check_message, expect

DELIMITER = b"<IDS|MSG>"
CHANNELS = ("iopub", "shell", "control", "stdin")
PATIENCE = 60  # seconds without the awaited message: far above anything that works


@dataclass
class Message:
    """One message as it arrived."""
    channel: str
    identities: list
    header: dict
    parent: dict
    metadata: dict
    content: dict
    buffers: list

    @property
    def type(self):
        return self.header.get("msg_type")

    @property
    def parent_id(self):
        return self.parent.get("msg_id")

    def __str__(self):
        text = json.dumps(self.content)
        return f"{self.channel}:{self.type} {text if len(text) < 300 else text[:300] + '…'}"


class TimedOut(AssertionError):
    """The awaited message did not come."""


class Client:
    """All channels of one kernel, as one front end sees them."""

    def __init__(self, connection, session=None):
        self.connection = connection
        self.session = session or uuid.uuid4().hex
        self.key = connection["key"].encode()
        self.log = []  # every message received, in order of arrival
        self.by_parent = defaultdict(list)  # the same, by the msg_id of their parent
        self.sent = {}  # msg_id → (channel, header)
        self.answered = set()  # requests that have their reply
        self.late = set()  # parents that may speak after their idle
        self.partial = set()  # parents whose busy we may have missed
        self.state = {}  # parent → "busy" or "idle"
        self.strict = True
        self._counter = itertools.count(1)
        self._context = zmq.Context()
        self._sockets = {}
        self._poller = zmq.Poller()
        for channel in CHANNELS:
            self._open(channel)

    # Sockets -----------------------------------------------------------------

    def address(self, channel):
        info = self.connection
        separator = "-" if info["transport"] == "ipc" else ":"
        return f"{info['transport']}://{info['ip']}{separator}{info[channel + '_port']}"

    def socket(self, kind, channel):
        """A socket of this client's own context, connected to a channel."""
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.reconnect_ivl = 5
        if kind != zmq.REQ:
            socket.rcvhwm = socket.sndhwm = 0
        if kind == zmq.DEALER:
            socket.identity = self.session.encode()
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(self.address(channel))
        return socket

    def _open(self, channel):
        socket = self.socket(zmq.SUB if channel == "iopub" else zmq.DEALER, channel)
        self._sockets[channel] = socket
        self._poller.register(socket, zmq.POLLIN)

    def close(self):
        self._context.destroy(linger=0)

    # Sending -----------------------------------------------------------------

    def header(self, msg_type, **extra):
        return {"msg_id": f"{self.session}_{next(self._counter)}", "session": self.session, "username": "tester",
                "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "msg_type": msg_type, "version": "5.4", **extra}

    def sign(self, parts):
        digest = hmac.new(self.key, digestmod=hashlib.sha256)
        for part in parts:
            digest.update(part)
        return digest.hexdigest().encode()

    def frames(self, header, content, parent=None, metadata=None, buffers=()):
        parts = [json.dumps(part).encode() for part in (header, parent or {}, metadata or {}, content)]
        return [DELIMITER, self.sign(parts), *parts, *buffers]

    def send_frames(self, channel, frames):
        self._sockets[channel].send_multipart(frames)

    def send(self, channel, msg_type, content=None, *, parent=None, metadata=None, buffers=()):
        """Sends a request and returns its msg_id."""
        header = self.header(msg_type)
        self.sent[header["msg_id"]] = (channel, header)
        self.send_frames(channel, self.frames(header, content or {}, parent, metadata, buffers))
        return header["msg_id"]

    def execute(self, code, *, late=False, **options):
        """Sends an execute_request; the returned run fills while messages are received."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {},
                   "allow_stdin": True, "stop_on_error": True, **options}
        run = Run(self, self.send("shell", "execute_request", content))
        if late:
            self.late.add(run.id)
        return run

    def run(self, code, **options):
        """Executes to the end: reply and idle."""
        return self.execute(code, **options).wait()

    def ask(self, msg_type, content=None, channel="shell"):
        """Sends any other request; returns the content of its reply, after idle."""
        return self.ask_message(msg_type, content, channel).content

    def ask_message(self, msg_type, content=None, channel="shell"):
        request = self.send(channel, msg_type, content)
        self.until(lambda: self.reply_to(request) and self.is_idle(request), f"reply and idle of {msg_type}")
        return self.reply_to(request)

    def answer(self, request, value):
        """Answers an input_request."""
        self.send_frames("stdin", self.frames(self.header("input_reply"), {"value": value, "status": "ok"}, request.header))

    # Receiving ---------------------------------------------------------------

    def receive(self, patience=PATIENCE):
        """The next message of any channel, checked and filed."""
        ready = dict(self._poller.poll(patience * 1000))
        if not ready:
            raise TimedOut(f"no message within {patience} s")
        channel = next(name for name in CHANNELS if self._sockets[name] in ready)
        message = self._parse(channel, self._sockets[channel].recv_multipart())
        self._check(message) if self.strict else self._note(message)
        self.log.append(message)
        self.by_parent[message.parent_id].append(message)
        return message

    def until(self, condition, what="the awaited message", patience=PATIENCE):
        """Receives until the condition holds; returns its value."""
        deadline = time.monotonic() + patience
        while not (value := condition()):
            left = deadline - time.monotonic()
            if left <= 0 or not self._poller.poll(left * 1000):
                recent = "\n  ".join(map(str, self.log[-8:]))
                raise TimedOut(f"waited {patience} s for {what}; the last messages were\n  {recent}")
            self.receive()
        return value

    def await_message(self, msg_type, parent=None, where=lambda message: True, start=0):
        """The first message of this type, from those that came and those that will."""
        def found():
            return next((m for m in self.log[start:] if m.type == msg_type
                         and (parent is None or m.parent_id == parent) and where(m)), None)
        return self.until(found, f"{msg_type}")

    def messages(self, parent=None, channel=None, types=None):
        return [m for m in (self.log if parent is None else self.by_parent[parent])
                if (channel is None or m.channel == channel) and (types is None or m.type in types)]

    def reply_to(self, request):
        channel, header = self.sent[request]
        if request not in self.answered:
            return None
        return next(m for m in reversed(self.by_parent[request]) if m.channel == channel)

    def is_idle(self, request):
        return self.state.get(request) == "idle"

    def welcome(self):
        """Waits until iopub is known to be connected."""
        self.await_message("iopub_welcome")

    # Checking ----------------------------------------------------------------

    @contextmanager
    def unchecked(self):
        """Answers to nonsense need not follow the specification; they are filed all the same."""
        before, self.strict = self.strict, False
        try:
            yield
        finally:
            self.strict = before

    def _note(self, message):
        if message.type == "status":
            self.state[message.parent_id] = message.content["execution_state"]
        elif message.channel in ("shell", "control"):
            self.answered.add(message.parent_id)

    def _parse(self, channel, frames):
        expect(DELIMITER in frames, f"a message without delimiter on {channel}: {frames!r}")
        at = frames.index(DELIMITER)
        signature, parts, buffers = frames[at + 1], frames[at + 2:at + 6], frames[at + 6:]
        expect(len(parts) == 4, f"{len(parts)} parts instead of 4 on {channel}")
        expect(hmac.compare_digest(signature, self.sign(parts)), f"wrong signature on {channel}")
        return Message(channel, frames[:at], *map(json.loads, parts), buffers)

    def _check(self, message):
        try:
            check_message(message)
            if message.channel == "iopub":
                self._check_pairing(message)
            else:
                self._check_answer(message)
        except AssertionError as error:
            raise AssertionError(f"{error}\n  in {message}\n  header {message.header}\n  parent {message.parent}") from None

    def _check_answer(self, message):
        """A reply belongs to one request of ours, on the same channel, and comes once."""
        expect(message.parent_id in self.sent, "the parent is no request of this client")
        channel, header = self.sent[message.parent_id]
        expect(message.parent == header, "the parent header is not a copy of the request's")
        if message.channel == "stdin":
            return
        expect(channel == message.channel, f"answered on {message.channel}, asked on {channel}")
        expect(message.type == header["msg_type"].replace("_request", "_reply"), "the reply is of another type")
        expect(message.parent_id not in self.answered, "a second reply")
        self.answered.add(message.parent_id)

    def _check_pairing(self, message):
        """busy, outputs, idle: once each for every parent."""
        parent = message.parent_id
        if parent is None:
            expect(message.type in ("status", "iopub_welcome", "stream", "comm_open", "comm_msg", "comm_close",
                                    "display_data", "update_display_data"), "no parent")
            return
        if parent in self.sent:
            expect(message.parent == self.sent[parent][1], "the parent header is not a copy of the request's")
        state = self.state.get(parent)
        if message.type == "status":
            now = message.content["execution_state"]
            if now == "busy":
                expect(state is None, f"busy after {state}")
            elif now == "idle":
                expect(state == "busy" or parent in self.partial, f"idle after {state}")
            else:
                return
            self.state[parent] = now
        elif parent not in self.partial:
            expect(state is not None, "output before busy")
            expect(state == "busy" or parent in self.late, "output after idle")


class Run:
    """One execution as its client sees it."""

    def __init__(self, client, msg_id):
        self.client = client
        self.id = msg_id

    def wait(self):
        client = self.client
        client.until(lambda: self.reply_message and client.is_idle(self.id), "execute_reply and idle")
        return self

    @property
    def header(self):
        return self.client.sent[self.id][1]

    @property
    def messages(self):
        """What iopub said about it."""
        return self.client.messages(self.id, "iopub")

    @property
    def reply_message(self):
        return self.client.reply_to(self.id)

    @property
    def reply(self):
        return self.reply_message.content

    @property
    def status(self):
        return self.reply["status"]

    @property
    def count(self):
        return self.reply["execution_count"]

    @property
    def outputs(self):
        return Outputs(self.messages)

    @property
    def stdout(self):
        return self.outputs.text("stdout")

    @property
    def stderr(self):
        return self.outputs.text("stderr")

    @property
    def result(self):
        """text/plain of the result, or None."""
        data = self.outputs.result
        return data and data["text/plain"]

    @property
    def error(self):
        return self.outputs.error

    def ok(self):
        """The run itself, if it went well; says the error otherwise."""
        if self.status != "ok":
            raise AssertionError("\n".join(self.reply.get("traceback", [str(self.reply)])))
        return self

    def printed(self, text):
        """Waits until this text has been printed to stdout."""
        self.client.until(lambda: text in self.stdout, f"{text!r} on stdout")
        return self

    def asked(self, number=1):
        """Waits for the nth input_request and returns it."""
        def requests():
            return [m for m in self.client.messages(self.id, "stdin") if m.type == "input_request"]
        self.client.until(lambda: len(requests()) >= number, "input_request")
        return requests()[number - 1]
