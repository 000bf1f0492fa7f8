"""Exceptions as the client sees them: the error message and IPython's look of a traceback.

The formatter is our own, because IPython's needs a tenth of a second of imports
for the first error and is missing in many environments; the text is the same in
both.  A user who changed the mode of IPython's tracebacks gets IPython's.
"""

import sys

import _cob
from cob import engine

CHAIN_MAX = 20
RED, RESET = "\x1b[31m", "\x1b[39m"


def report(error):
    """Send the error message; returns the status of the execution."""
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    try:
        lines = render(error)
    except Exception as broken:  # an exception with a hostile __str__, __cause__, ...
        lines = [f"{name(error)}: {text(error)}", f"(the traceback could not be shown: {name(broken)})"]
    send(type(error).__name__, text(error), lines)
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "error"


def send(ename, evalue, lines):
    """Lone surrogates cannot cross the wire."""
    ename, evalue, *lines = (clean(line) for line in (ename, evalue, *lines))
    _cob.error(ename, evalue, lines)


def clean(line):
    line = str(line)
    return line if line.isascii() else line.encode("utf-8", "backslashreplace").decode()


def name(error):
    return type(error).__name__


def text(error):
    """``str(error)``, which is user code and may fail."""
    try:
        return str(error)
    except Exception:
        return f"<unprintable {name(error)} object>"


def render(error):
    """The traceback as a list of lines or blocks of lines."""
    own = getattr(type(error), "_render_traceback_", None)
    if own is not None:
        try:
            lines = error._render_traceback_()
            if lines:
                return [str(line) for line in lines]
        except Exception:  # then the traceback is shown in the usual way
            pass
    if isinstance(error, SystemExit):
        return ["An exception has occurred, use %tb to see the full traceback.\n", last_line(error)]
    if engine.shell is not None:
        from cob import ipython

        lines = ipython.render(error)
        if lines is not None:
            return lines
    if _is_group(error):
        import traceback

        blocks = traceback.format_exception(type(error), error, visible(error.__traceback__))
        return [block.removesuffix("\n") for block in blocks]
    if isinstance(error, SyntaxError) and visible(error.__traceback__) is None:
        return [syntax_error(error)]
    lines = [RED + "-" * 75 + RESET]
    for position, (link, part) in enumerate(_chain(error)):
        if position:
            lines.append(f"\n{link}\n")
        lines.extend(_one(part))
    return lines


def _is_group(error):
    group = getattr(sys.modules["builtins"], "BaseExceptionGroup", None)
    return group is not None and isinstance(error, group)


def _chain(error):
    """The exceptions that led to this one, oldest first, each with the words that link it."""
    found, seen = [], set()
    while error is not None and id(error) not in seen and len(found) < CHAIN_MAX:
        seen.add(id(error))
        if error.__cause__ is not None:
            earlier, why = error.__cause__, "The above exception was the direct cause of the following exception:"
        elif error.__context__ is not None and not error.__suppress_context__:
            earlier, why = error.__context__, "During handling of the above exception, another exception occurred:"
        else:
            earlier, why = None, ""
        found.append((why, error))
        error = earlier
    return found[::-1]


def _one(error):
    from cob import frames

    kind = name(error)
    title = "Traceback (most recent call last)"
    lines = [f"{RED}{kind}{RESET}{title:>{max(75 - len(kind), len(title) + 1)}}"]
    lines.extend(frames.blocks(visible(error.__traceback__)))
    lines.append(syntax_error(error) if isinstance(error, SyntaxError) else last_line(error))
    return lines


def last_line(error):
    notes = getattr(error, "__notes__", None) or []
    try:
        notes = [str(note) for note in notes]
    except Exception:  # __notes__ may be anything
        notes = [repr(notes)]
    return "\n".join([f"{RED}{name(error)}{RESET}: {text(error)}", *notes])


def visible(tb):
    """The traceback from the first frame of a cell on: what ran the cell is no news."""
    from cob import cells

    entry = tb
    while entry is not None:
        if entry.tb_frame.f_code.co_filename in cells.sources:
            return entry
        entry = entry.tb_next
    while tb is not None and tb.tb_frame.f_globals.get("__name__", "").startswith("cob."):
        tb = tb.tb_next
    return tb


def syntax_error(error):
    """Where the parser stopped, with the line and a caret."""
    from cob import frames

    where = frames.place(error.filename or "<string>", error.lineno or 0)
    lines = [f"  {where}"]
    source = error.text
    if source is None and error.filename and error.lineno:
        source = frames.line(error.filename, error.lineno)
    if source and source.strip():
        shown = source.rstrip("\n\r").lstrip(" \t\f")
        lines.append(f"{RED}    {shown}{RESET}")
        if error.offset is not None:
            dropped = len(source.rstrip("\n\r")) - len(shown)
            column = max(error.offset - 1 - dropped, 0)
            end = getattr(error, "end_offset", None) or 0
            same_line = getattr(error, "end_lineno", None) in (None, error.lineno)
            width = max(end - error.offset, 1) if same_line and end > 0 else 1
            lines.append("    " + " " * column + "^" * min(width, max(len(shown) - column, 1)))
    lines.append(f"{RED}{name(error)}{RESET}{RED}:{RESET} {error.msg if error.msg else text(error)}")
    lines.extend(getattr(error, "__notes__", None) or [])
    return "\n".join(str(line) for line in lines) + "\n"
