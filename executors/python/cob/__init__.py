"""What runs inside the user's own interpreter.

The Rust half of the executor owns the main thread and calls the functions of
``cob.engine``; everything else here is imported on first use, because the time
until a session is ready is the time of what is imported at the start.  Only
the standard library is needed.
"""


class StdinNotImplementedError(EOFError):
    """The client that asked for this execution cannot answer questions."""


class InputTimeout(EOFError):
    """Nobody answered in the time that the client allowed."""


class InputDeclined(EOFError):
    """The client refused to answer."""


class ToolError(Exception):
    """A tool of a client failed: `ename` and `evalue` say how."""

    def __init__(self, ename, evalue=""):
        super().__init__(ename, evalue)
        self.ename, self.evalue = ename, evalue

    def __str__(self):
        return f"{self.ename}: {self.evalue}" if self.evalue else self.ename


class ToolUnavailable(RuntimeError):
    """No client offered the tool in the time that the call was to wait."""


class ChannelClosed(Exception):
    """The channel was closed: by the client for what it sends, by the code for what the code sends."""


class CheckpointError(Exception):
    """There is no such checkpoint, or none can be taken: `code` is a word for programs."""

    def __init__(self, code, text=""):
        super().__init__(code, text)
        self.code, self.text = code, text

    def __str__(self):
        return self.text or self.code


_RAISE = object()


def input(prompt="", *, password=False, timeout=None, default=_RAISE):
    """Asks the client like the builtin, for at most `timeout` seconds.

    When nobody has answered by then: `default` if there is one, else
    `InputTimeout`.  The question outlives the client and, with `--grace`, the
    server; whoever comes back may answer it.
    """
    from cob import stdio

    try:
        return stdio.ask(str(prompt), password, timeout)
    except InputTimeout:
        if default is _RAISE:
            raise
        return default


def execution():
    """What the host knows this execution by: a dict with `promise`, `session`, `key` and `durability`.

    `traceparent` is the trace context that the client gave, if it gave one.
    The promise names this execution and no other, however often it is asked
    for: hand it on as the idempotency key of whatever the code does elsewhere.
    """
    from cob import stdio

    return stdio.call("execution", {})


def channel(name):
    """The durable channel `name` of this session: see `cob.channels.Channel`."""
    from cob import channels

    return channels.channel(name)


def checkpoint(label=None, durable=False, force=False):
    """Has a checkpoint of the session taken when this cell ends; returns its name.

    It holds everything that the session holds, and lives as long as the server.
    With `durable` it is also written down; then it survives the server, but
    holds only what can be pickled.  What code did outside of the session (files,
    mail, rows of a database) is in no checkpoint.

    `CheckpointError` when none may be taken.  What is in the way (threads, child
    processes, a GPU) is known only when the cell has ended: then there is none
    of this name.  `force` takes it without them.
    """
    from cob import timeline

    return timeline.checkpoint(label, durable, force)


def checkpoints():
    """The session's checkpoints, oldest first: see `cob.timeline.Checkpoint`."""
    from cob import timeline

    return timeline.checkpoints()


def restore(name_or_label):
    """Goes back to a checkpoint when this cell ends, however it ends.

    All variables are then as they were; `In`, `Out` and their numbers go on from
    here.  `CheckpointError` when there is no such checkpoint.
    """
    from cob import timeline

    timeline.restore(name_or_label)


def undo(n=1):
    """Goes back to before the last cell, or before the last `n`, when this one ends.

    Needs a checkpoint from then, else `CheckpointError`: a session that takes
    them automatically has one for each of the last few cells.
    """
    from cob import timeline

    timeline.undo(n)


def __getattr__(name):
    if name == "tools":
        from importlib import import_module  # `from cob import tools` would ask here again

        return import_module("cob.tools")
    raise AttributeError(f"module 'cob' has no attribute {name!r}")
