"""Cells that are not plain Python: magics, shell escapes, help, pasted prompts, indented text.

A cell comes here only after the compiler refused it, or if it is a single line
whose first word could be a magic without its ``%``.  So ``%``, ``!`` and ``?``
inside of strings, comments and expressions never matter, and Python that
compiles is never changed.
"""

import re
import sys

from cob import cells, engine
INLINE = re.compile(r"^%(?:matplotlib(?:[ \t]+inline)?|config[ \t]+InlineBackend\..*)[ \t]*$", re.MULTILINE)


def automagic(code, word, filename):
    """The code objects of a one-line magic that was written without its ``%``, else None."""
    if not _is_automagic(code, word):
        return None
    from cob import ipython

    if ipython.load() is None:
        return None
    changed = ipython.transform(code, filename)
    return None if changed.strip() == code.strip() else cells.compile_cell(changed, filename)


def _is_automagic(code, word):
    """Whether a one-line cell that begins with this word is a magic without its ``%``."""
    if word in engine.namespace:
        value = engine.namespace[word]
        return code.strip() == word and type(value).__module__ == "IPython.core.macro"
    known = engine.AUTOMAGIC
    if engine.shell is not None:
        if not engine.shell.automagic:
            return False
        known = engine.shell.magics_manager.magics["line"]
    rest = code.lstrip()[len(word):].lstrip()
    return word in known and rest[:1] not in ("=", ".", "(", "[", ",", ":")


def recover(code, filename, error):
    """The compiler said ``error``: the code objects of what the user meant, or the error again."""
    from cob import ipython

    if not looks_special(code):
        raise error
    parts = _about_checkpoints(code, filename)
    if parts is not None:
        return parts
    if ipython.load() is None:
        return _without_ipython(code, filename, error)
    changed = ipython.transform(code, filename)
    if changed.strip() == code.strip():
        raise error
    return ipython.compile_cell(changed, filename) or cells.compile_cell(changed, filename)


def _about_checkpoints(code, filename):
    """The code objects of a cell that is plain Python but for ``%undo`` and its like, else None."""
    if "%" not in code:
        return None
    from cob import timeline

    changed = timeline.without_magics(code)
    try:
        return cells.compile_cell(changed, filename) if changed != code else None
    except SyntaxError:
        return None  # other magics are there, too


def looks_special(code):
    """Whether IPython could make something of it; a plain syntax error must not wait for the import."""
    start = code.lstrip()
    if code[:1] in " \t" or start.startswith((">>>", "...", "In [", "/", ",", ";")):
        return True
    if any(mark in code for mark in "%!?"):
        return True
    word = start.split(None, 1)[:1]
    return bool(word) and "\n" not in start.rstrip() and word[0] in engine.AUTOMAGIC


def _without_ipython(code, filename, error):
    """What still works without IPython: help with ``?`` and text that is indented as a whole."""
    text = code.strip()
    if "\n" not in text and (text.startswith("?") or text.endswith("?")):
        return [(compile(f"__import__('cob.inspecting').inspecting.page({text.strip('?').strip()!r}, "
                         f"{text.count('?')})", filename, "exec"), False)]
    if code[:1] in " \t":
        return cells.compile_cell(dedented(code), filename)
    if INLINE.search(code):  # the wish of so many notebooks is granted anyway
        without = INLINE.sub("pass", code)
        try:
            return cells.compile_cell(without, filename)
        except SyntaxError as other:
            code, error = without, other
    line = _special_line(code, error)
    if line is not None:
        missing = SyntaxError("magics and shell escapes need IPython; pip install ipython")
        missing.filename, missing.lineno, missing.offset = filename, line, 1
        missing.text = code.split("\n")[line - 1]
        raise missing from None
    raise error


def dedented(code):
    margin = code[: len(code) - len(code.lstrip(" \t"))]
    return "\n".join(line.removeprefix(margin) for line in code.split("\n"))


def _special_line(code, error):
    """The number of the first line that is a magic or a shell escape."""
    lines = code.split("\n")
    for number in sorted({1, min(max(error.lineno or 1, 1), len(lines))}):
        line = lines[number - 1].strip()
        value = line.partition("=")[2].strip()
        if line[:1] in ("%", "!", "?") or line.endswith("?") or value[:1] in ("%", "!"):
            return number
    words = lines[0].split(None, 1)
    if len(lines) == 1 and words and words[0] in engine.AUTOMAGIC and words[0] not in sys.modules["builtins"].__dict__:
        return 1
    return None
