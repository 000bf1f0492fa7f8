"""Colours for lines of Python source in tracebacks and help: IPython's, with one regular expression.

Line by line and therefore blind for strings that span lines; good enough for a
few lines around an error, and free of the tenth of a second that pygments needs.
"""

import builtins
import keyword
import re

TOKEN = re.compile(
    r"""(?P<comment>\#.*)
    |(?P<string>[rRbBuUfF]{0,2}(?:\"\"\".*?(?:\"\"\"|$)|'''.*?(?:'''|$)|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?))
    |(?P<number>\b(?:0[xXoObB][0-9a-fA-F_]+|\d[\d_]*\.?[\d_]*(?:[eE][+-]?\d+)?[jJ]?))
    |(?P<decorator>(?<![\w)\]])@[\w.]+(?=\s*$|\())
    |(?P<word>[^\W\d]\w*)""",
    re.VERBOSE,
)
OPERATORS = {"in", "is", "and", "or", "not"}
KEYWORDS = set(keyword.kwlist) - OPERATORS
BUILTINS = {name for name in dir(builtins) if not name.startswith("_")} | {"self", "cls"}
COLORS = {
    "comment": ("\x1b[38;5;66;03m", "\x1b[39;00m"),
    "string": ("\x1b[33m", "\x1b[39m"),
    "number": ("\x1b[32m", "\x1b[39m"),
    "decorator": ("\x1b[38;5;129m", "\x1b[39m"),
    "keyword": ("\x1b[38;5;28;01m", "\x1b[39;00m"),
    "operator": ("\x1b[38;5;129;01m", "\x1b[39;00m"),
    "builtin": ("\x1b[38;5;28m", "\x1b[39m"),
    "exception": ("\x1b[38;5;167;01m", "\x1b[39;00m"),
    "function": ("\x1b[34m", "\x1b[39m"),
    "class": ("\x1b[34;01m", "\x1b[39;00m"),
}
MARK = ("\x1b[30;43m", "\x1b[39;49m")


def colored(line, mark=None):
    """The line with colours; ``mark`` is a range of characters that stands out."""
    if mark is None:
        return _colored(line)
    begin, end = mark
    return _colored(line[:begin]) + MARK[0] + line[begin:end] + MARK[1] + _colored(line[end:])


def _colored(line):
    parts, position, before = [], 0, ""
    for match in TOKEN.finditer(line):
        parts.append(line[position:match.start()])
        token, position = match.group(), match.end()
        kind = match.lastgroup
        if kind == "word":
            kind = _word(token, before)
            before = token
        else:
            before = ""
        opening, closing = COLORS.get(kind, ("", ""))
        parts.append(opening + token + closing)
    parts.append(line[position:])
    return "".join(parts)


def _word(word, before):
    if before == "def":
        return "function"
    if before == "class":
        return "class"
    if word in OPERATORS:
        return "operator"
    if word in KEYWORDS:
        return "keyword"
    if word in BUILTINS:
        kind = getattr(builtins, word, None)
        is_error = isinstance(kind, type) and issubclass(kind, BaseException)
        return "exception" if is_error else "builtin"
    return ""
