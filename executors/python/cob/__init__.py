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
