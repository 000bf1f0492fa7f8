"""Whether a cell is complete, and how the next line is indented: for consoles."""

import warnings

from cob import cells, engine


def reply(code):
    """The content of an is_complete_reply."""
    try:
        status, indent = check(code)
    except (Exception, KeyboardInterrupt):  # an honest "unknown" makes every console run the cell
        return '{"status":"unknown"}'
    if status == "incomplete":
        return '{"status":"incomplete","indent":"' + " " * indent + '"}'
    return '{"status":"' + status + '"}'


def check(code):
    """("complete", 0), ("incomplete", columns) or ("invalid", 0)."""
    if engine.shell is not None:
        status, indent = engine.shell.check_complete(code)
        return status, len(indent) if isinstance(indent, str) else indent or 0
    stripped = code.strip()
    if not stripped:
        return "complete", 0
    lines = code.split("\n")
    if stripped.startswith("%%"):  # a cell magic ends with an empty line
        if len(lines) == 1:
            return ("complete", 0) if stripped.endswith("?") else ("incomplete", 0)
        return ("incomplete", 0) if lines[-1].strip() or lines[-2].strip() else ("complete", 0)
    if code[:1] in (" ", "\t"):
        from cob import syntax

        code = syntax.dedented(code)
        lines = code.split("\n")
    plain = "\n".join(_as_python(line) for line in lines)
    error = _error(plain)
    if error is not None:
        return ("incomplete", _indent(lines)) if _is_open(plain, error) else ("invalid", 0)
    if lines[-1].strip() and _inside_block(lines, plain):
        return "incomplete", _indent(lines)
    return "complete", 0


def _as_python(line):
    """Magics and shell escapes are complete lines."""
    text = line.lstrip()
    if text[:1] in ("%", "!") or text.endswith("?") and "#" not in text and '"' not in text and "'" not in text:
        return line[: len(line) - len(text)] + "pass"
    target, equals, value = text.partition("=")
    if equals and value.lstrip()[:1] in ("%", "!") and target.replace(",", " ").replace(" ", "").isidentifier():
        return line[: len(line) - len(text)] + "pass"  # x = !ls
    return line


def _error(code):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code + "\n", "<input>", "exec", cells.TOP_LEVEL_AWAIT, True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        return error
    return None


def _is_open(code, error):
    """Whether more text could mend the error."""
    if not isinstance(error, SyntaxError):
        return False
    message = str(error.msg)
    if code.rstrip(" \t").endswith("\\\n"):
        return False
    if code.rstrip().rpartition("\n")[2].startswith("@"):
        return True
    if "was never closed" in message or "triple-quoted" in message or "unexpected EOF" in message:
        return True
    if code.rstrip(" \t").endswith("\\"):
        return True
    last = len(code.rstrip().split("\n"))
    if "expected an indented block" in message or message.startswith("expected 'except'"):
        return (error.lineno or 0) >= last
    return False


def _inside_block(lines, code):
    """A block goes on until an empty line says that it is over."""
    tree = compile(code + "\n", "<input>", "exec", cells.ONLY_AST | cells.TOP_LEVEL_AWAIT, True)
    if not tree.body:
        return lines[-1].strip().startswith("@")
    last = tree.body[-1]
    return hasattr(last, "body") and (last.end_lineno > last.lineno or lines[-1][:1] in (" ", "\t"))


def _indent(lines):
    """How far the next line is indented."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    indent = len(last.expandtabs(4)) - len(last.expandtabs(4).lstrip())
    text = last.partition("#")[0].strip()
    return indent + 4 if text.endswith(":") else indent
