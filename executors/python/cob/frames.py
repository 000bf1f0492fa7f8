"""The frames of a traceback as text: place, signature, a few source lines with an arrow."""

import sys

from cob import cells, highlight

AROUND = 2  # lines shown before and after
SAME_MAX = 3  # how often one line of code is shown before "skipping similar frames"
GREEN, CYAN, BLUE, RED, RESET = "\x1b[32m", "\x1b[36m", "\x1b[34m", "\x1b[31m", "\x1b[39m"


def blocks(tb):
    """One block of text per frame; repeated and hidden frames become a note."""
    entries = []
    while tb is not None:
        if not tb.tb_frame.f_globals.get("__name__", "").startswith("cob."):  # ours are no news
            entries.append(tb)
        tb = tb.tb_next
    found, skipped, hidden, seen = [], {}, 0, {}
    for position, tb in enumerate(entries):
        last = position == len(entries) - 1
        if not last and tb.tb_frame.f_locals.get("__tracebackhide__") is True:
            hidden += 1
            continue
        if hidden:
            found.append(f"    {RED}[... skipping hidden {hidden} frame]{RESET}\n")
            hidden = 0
        key = (tb.tb_frame.f_code, tb.tb_lineno)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] >= SAME_MAX and not last:
            skipped[key] = skipped.get(key, 0) + 1
            continue
        if skipped:
            found.append(_similar(skipped))
            skipped = {}
        found.append(block(tb))
    return found


def _similar(skipped):
    parts = (f"{qualified(code)} at line {number} ({times} times)" for (code, number), times in skipped.items())
    return f"    {RED}[... skipping similar frames: {', '.join(parts)}]{RESET}\n"


def block(tb):
    code = tb.tb_frame.f_code
    text = place(code.co_filename, tb.tb_lineno)
    if code.co_name != "<module>":
        text += f", in {CYAN}{qualified(code)}{RESET}{BLUE}({', '.join(arguments(code))}){RESET}"
    return "\n".join([text, *source(tb)]) + "\n"


def place(filename, number):
    """``Cell In[3], line 2`` or ``File ~/x.py:2``."""
    known = cells.sources.get(filename)
    if known is not None:
        return f"{CYAN}Cell{RESET}{CYAN} {RESET}{GREEN}In[{known[0]}]{RESET}{GREEN}, line {number}{RESET}"
    return f"{CYAN}File {RESET}{GREEN}{short(filename)}:{number}{RESET}"


def short(path):
    import os

    home = os.path.expanduser("~")
    return "~" + path[len(home):] if home not in ("~", "/") and path.startswith(home + os.sep) else path


def qualified(code):
    return getattr(code, "co_qualname", code.co_name)


def arguments(code):
    count = code.co_argcount + code.co_kwonlyargcount
    names = list(code.co_varnames[:count])
    if code.co_flags & 0x04:
        names.append("*" + code.co_varnames[count])
        count += 1
    if code.co_flags & 0x08:
        names.append("**" + code.co_varnames[count])
    return names


def lines_of(filename, module_globals=None):
    known = cells.sources.get(filename)
    if known is not None:
        return known[1].splitlines()
    import linecache

    return [text.rstrip("\n\r") for text in linecache.getlines(filename, module_globals)]


def line(filename, number):
    lines = lines_of(filename)
    return lines[number - 1] if 0 < number <= len(lines) else ""


def source(tb):
    """The lines around the one that failed, the failing expression marked."""
    code, number = tb.tb_frame.f_code, tb.tb_lineno
    lines = lines_of(code.co_filename, tb.tb_frame.f_globals)
    if not number or not 0 < number <= len(lines):
        return []
    first, last = _scope(code, len(lines))
    start, end, column, end_column = _position(tb)
    chosen = [number]
    chosen = _nearby(lines, range(number - 1, first - 1, -1))[::-1] + chosen
    chosen += _nearby(lines, range(number + 1, last + 1))
    # tabs and the indentation that all lines share only push the text to the right
    margin = min((_indent(lines[n - 1]) for n in chosen if lines[n - 1].strip()), default=0)
    shown = []
    for n in chosen:
        text = lines[n - 1]
        mark = None
        if start and start <= n <= end:
            mark = _marked(text, column if n == start else None, end_column if n == end else None, margin)
        colored = highlight.colored(text[margin:], mark)
        if n == number:
            shown.append(f"{GREEN}{'-' * max(5 - len(str(n)), 0)}> {RESET}{GREEN}{n}{RESET} {colored}")
        else:
            shown.append(f"{GREEN}{n:>7}{RESET} {colored}")
    return shown


def _nearby(lines, numbers):
    found = []
    for number in numbers:
        if lines[number - 1].strip():
            found.append(number)
            if len(found) == AROUND:
                break
    return found


def _indent(text):
    return len(text) - len(text.lstrip(" \t"))


def _scope(code, count):
    """First and last line of a function; the whole text for module code."""
    if code.co_name == "<module>":
        return 1, count
    last = code.co_firstlineno
    pending = [code]
    while pending:
        part = pending.pop()
        for _, _, number in part.co_lines():
            if number is not None and number > last:
                last = number
        pending.extend(const for const in part.co_consts if hasattr(const, "co_lines"))
    return max(code.co_firstlineno, 1), min(last, count)


def _position(tb):
    """(first line, last line, first column, last column) in bytes of what was evaluated."""
    code = tb.tb_frame.f_code
    if sys.version_info < (3, 11) or tb.tb_lasti < 0:
        return None, None, None, None
    from itertools import islice

    start, end, column, end_column = next(islice(code.co_positions(), tb.tb_lasti // 2, None), (None,) * 4)
    if start is None or end is None or column is None or end_column is None:
        return None, None, None, None
    return start, end, column, end_column


def _marked(text, column, end_column, margin):
    """The marked range in characters of the shown text; None where a whole statement failed."""
    raw = text.encode("utf-8", "surrogatepass")
    begin = _indent(text) if column is None else len(raw[:column].decode("utf-8", "replace"))
    end = len(text.rstrip()) if end_column is None else len(raw[:end_column].decode("utf-8", "replace"))
    if text[begin:].startswith(("raise", "assert", "import", "from ", "del ")) or end <= begin:
        return None
    return max(begin - margin, 0), max(end - margin, 0)
