"""Durable channels between the code and clients of the session: ``cob.channel("name")``.

What is sent is recorded before `send` returns, and can be read later and again.
One question to the host at a time: only the main thread of the running cell can
send and receive.
"""

import _cob

_known = {}


def channel(name):
    """The channel of this name; the same one however often it is asked for."""
    name = str(name)
    if name not in _known:
        _known[name] = Channel(name)
    return _known[name]


def renew():
    """In a copy of the process: others may have sent since, and the session may be another one."""
    for channel in _known.values():
        channel._next = None


class Channel:
    """One end of a channel; at the other end are clients. Items are JSON values.

    The host keeps no place of the code's: it numbers what is sent, and what is
    received is asked for by number.  So a question that has to be asked again,
    since another server has taken over, changes nothing.
    """

    def __init__(self, name):
        self.name = name
        self._next = None  # number of the next item to be sent, if that is certain
        self._received = None  # number of the next item to be asked for, and what was not handed out, last first
        self._sends = True
        self._session = None  # whose channel it is

    def __repr__(self):
        return f"<cob.channel {self.name!r}>"

    def send(self, value):
        """Sends a JSON value. Waits while the reader has too much before it."""
        from cob import encoding

        import cob

        text = encoding.strict(value)
        if not self._sends:
            raise cob.ChannelClosed(self.name)
        self._open()
        # An interrupt from here on leaves it uncertain whether the item was sent.
        number, self._next = self._next, None
        question = f'{{"channel": {encoding.strict(self.name)}, "number": {number}, "data": {text}}}'
        self._value(*_cob.call("channel_send", question))
        self._next = number + 1

    def recv(self, timeout=None):
        """The next item; waits for it, at most `timeout` seconds (then `TimeoutError`).

        `cob.ChannelClosed` when the client has closed the channel and everything was received.
        """
        if self._received is None or not self._received[1]:
            self._open()
            arguments = {"channel": self.name, "from": self._received[0]}
            if timeout is not None:
                arguments["timeout_ms"] = max(0, int(timeout * 1000))
            batch = self._ask("channel_recv", arguments)
            items = batch["items"][::-1]
            # In one step: an interrupt in between would lose items or bring them twice.
            self._received = batch["first"] + len(items), items
        return self._received[1].pop()

    def __iter__(self):
        return self

    def __next__(self):
        import cob

        try:
            return self.recv()
        except cob.ChannelClosed:
            raise StopIteration from None

    def close(self):
        """Nothing more will be sent. What the client sends can still be received."""
        if self._sends:
            self._ask("channel_close", {"channel": self.name})
            self._sends = False

    def _open(self):
        if self._next is None:
            found = self._ask("channel_open", {"channel": self.name})
            # A session that was branched off begins its channels anew; one that went back receives again what came since.
            if found.get("session") != self._session:
                self._session, self._received = found.get("session"), None
            if self._received is None:
                self._received = found["from"], []
            self._next = found["next"]

    def _ask(self, kind, arguments):
        from cob import encoding

        return self._value(*_cob.call(kind, encoding.strict(arguments)))

    def _value(self, outcome, answer):
        import cob
        from cob import encoding

        if outcome == "value":
            return encoding.loads(answer)
        if outcome == "eof":
            raise cob.ChannelClosed(self.name)
        if outcome == "timed_out":
            raise TimeoutError(f"nothing came through the channel {self.name!r} in time")
        raise RuntimeError(f"the channel {self.name!r} cannot be used: {answer}")
