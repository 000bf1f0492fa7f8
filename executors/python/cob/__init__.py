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

    The promise names this execution and no other, however often it is asked
    for: hand it on as the idempotency key of whatever the code does elsewhere.
    """
    from cob import stdio

    return stdio.call("execution", {})
