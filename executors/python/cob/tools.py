"""Functions of clients: ``cob.tools.NAME(**arguments)``.

A client of the session registers them; a call waits for the client's answer and
outlives it and, with a grace, the server.  Arguments and values are JSON.  One
question at a time: only the main thread of the running cell can call.
"""

import _cob as _native


def call(name, arguments, timeout=None):
    """Calls the tool `name` with a dict of arguments; returns its value.

    Raises `cob.ToolError` with the client's error, `cob.ToolUnavailable` when no
    client offered the tool within `timeout` seconds (60 if not given), and
    `TimeoutError` when the one that did has not answered by then.  A value that
    is no JSON is a `TypeError`, and nothing is asked.
    """
    import cob
    from cob import encoding

    question = {"name": str(name), "arguments": dict(arguments)}
    if timeout is not None:
        question["timeout_ms"] = max(0, int(timeout * 1000))
    outcome, answer = _native.call("tool", encoding.strict(question))
    if outcome == "value":
        return encoding.loads(answer)
    if outcome == "failed":
        ename, evalue = encoding.loads(answer)
        if ename == "ToolUnavailable":
            raise cob.ToolUnavailable(evalue)
        raise cob.ToolError(ename, evalue)
    if outcome == "timed_out":
        raise TimeoutError(f"the tool {name!r} has not answered in time")
    if outcome == "eof":
        raise EOFError(answer)
    raise cob.ToolError("ToolDeclined", answer)


def __getattr__(name):
    if name.startswith("_"):  # what libraries look for in every object
        raise AttributeError(name)

    def tool(**arguments):
        return call(name, arguments)

    tool.__name__ = tool.__qualname__ = name
    tool.__doc__ = f"The tool {name!r} of a client of this session."
    return tool


def __dir__():
    from cob import encoding

    outcome, answer = _native.call("tools", "{}")
    return ["call", *encoding.loads(answer)] if outcome == "value" else ["call"]
