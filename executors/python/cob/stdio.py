"""sys.stdout, sys.stderr and sys.stdin of a session, and the functions that ask the user.

``write`` of both output streams is the native function itself, so that ``print``
reaches the pipe without a Python frame in between.
"""

import builtins
import io
import sys

import _cob
import cob


class Binary(io.BufferedIOBase):
    """``sys.stdout.buffer``: bytes go to the same pipe, in the same order."""

    def __init__(self, text, write):
        self._text, self._write = text, write
        self.raw, self.name, self.mode = self, text.name, "wb"

    def write(self, data):
        data = bytes(data)
        try:
            self._write(data.decode())
        except UnicodeDecodeError:
            import os

            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self.fileno(), rest):]
        return len(data)

    def writable(self):
        return True

    def fileno(self):
        return self._text.fileno()

    def isatty(self):
        return False

    def close(self):
        """The pipe belongs to the session."""


class Output(io.TextIOBase):
    """A text stream of the session; nothing is buffered, so ``flush`` has nothing to do."""

    encoding, errors, newlines = "utf-8", "backslashreplace", None
    line_buffering, write_through, mode = True, True, "w"

    def __init__(self, name, descriptor, write):
        self.name, self._descriptor, self.write = name, descriptor, write
        self.buffer = Binary(self, write)

    def fileno(self):
        return self._descriptor

    def isatty(self):
        return False

    def writable(self):
        return True

    def flush(self):
        pass

    def close(self):
        """The pipe belongs to the session: closing would end all output."""

    def reconfigure(self, **options):
        """Accepted for programs that set the encoding; the pipe is always UTF-8."""

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__name__} name={self.name!r} encoding='utf-8'>"


class Input(io.TextIOBase):
    """``sys.stdin``: a line is a question to the client; anything else is at its end.

    ``read()`` does not ask: programs that look for piped data would wait for ever.
    """

    encoding, errors, newlines, name, mode = "utf-8", "strict", None, "<stdin>", "r"
    line_buffering = False

    def fileno(self):
        return 0

    def isatty(self):
        return False

    def readable(self):
        return True

    def read(self, size=-1):
        return ""

    def readline(self, size=-1):
        try:
            return ask("", False) + "\n"
        except EOFError:
            return ""

    def close(self):
        pass


def ask(prompt, password, timeout=None):
    """One question to the client; the answer, or the exception that says why there is none."""
    from cob import engine

    if not engine.allow_stdin:
        function = "getpass" if password else "raw_input"
        raise _not_implemented()(f"{function} was called, but this frontend does not support input requests.")
    arguments = {"prompt": prompt, "password": password}
    if timeout is not None:
        arguments["timeout_ms"] = max(0, int(timeout * 1000))
    value = call("input", arguments)
    return value if isinstance(value, str) else value["value"]


def call(kind, arguments):
    """Asks the host; its answer, or the exception that says why there is none."""
    from cob import encoding

    outcome, answer = _cob.call(kind, encoding.dumps(arguments))
    if outcome == "value":
        return encoding.loads(answer)
    if outcome == "eof":
        raise EOFError(answer or "end of input")
    if outcome == "timed_out":
        raise cob.InputTimeout(answer or "nobody answered in time")
    raise cob.InputDeclined(answer or "the client declined to answer")


def _not_implemented():
    """With IPython loaded the error is IPython's as well, for code that catches that one."""
    theirs = sys.modules.get("IPython.core.error")
    if theirs is None:
        return cob.StdinNotImplementedError
    return type("StdinNotImplementedError", (cob.StdinNotImplementedError, theirs.StdinNotImplementedError), {})


def input(prompt="", /):
    """Ask the user for a line of text."""
    return ask(str(prompt), False)


def getpass(prompt="Password: ", stream=None, **options):
    """Ask the user for a secret; the client does not echo it."""
    return ask(str(prompt), True)


def install():
    """Make the streams of this process those of the session."""
    sys.stdout = sys.__stdout__ = Output("<stdout>", 1, _cob.stdout_write)
    sys.stderr = sys.__stderr__ = Output("<stderr>", 2, _cob.stderr_write)
    sys.stdin = sys.__stdin__ = Input()
    builtins.input = input
    # One write for a line instead of four. The name is the builtin's, so that it pickles as the builtin.
    _cob.set_streams(sys.stdout, sys.stderr, builtins.print)
    _cob.print.__module__ = "builtins"
    builtins.print = _cob.print
