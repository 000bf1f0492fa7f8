"""The text of cells: what it is called, where it is kept, how it becomes code.

Two facts shape this file.  Compiling is most of the cost of a small cell, and
going through a syntax tree multiplies the cost of a large one; so the *text* is
cut before its last statement and both parts are compiled as they are.  The tree
(tree.py) is built only when the text cannot be cut: a bracket or a string is
open, or several statements share the last line.
"""

import sys
from _imp import source_hash

ONLY_AST, TOP_LEVEL_AWAIT = 0x400, 0x2000
FUTURES = 0x1FE0000  # every flag that "from __future__ import" can set
CELLS_MAX, CHARACTERS_MAX = 10_000, 64 << 20  # of source text that is kept for tracebacks

sources = {}  # file name -> (execution count, source), oldest first
_characters = 0
future_flags = 0


def name(code, count):
    """The file name of a cell; the form is one that numba, joblib and others know."""
    digest = source_hash(0, code.encode("utf-8", "surrogatepass")).hex()[:12]
    return f"<ipython-input-{count}-{digest}>"


def keep(filename, code, count):
    """Remember a cell's source, so that tracebacks and ``inspect`` can show it."""
    global _characters
    if filename in sources:
        forget(filename)
    sources[filename] = (count, code)
    _characters += len(code)
    while len(sources) > CELLS_MAX or (_characters > CHARACTERS_MAX and len(sources) > 1):
        forget(next(iter(sources)))
    # linecache is not imported for this: its import takes longer than the start of a session.
    linecache = sys.modules.get("linecache")
    if linecache is not None:
        publish(linecache, filename)


def forget(filename):
    """The source of this cell is not needed any more."""
    global _characters
    _characters -= len(sources.pop(filename)[1])
    linecache = sys.modules.get("linecache")
    if linecache is not None:
        linecache.cache.pop(filename, None)


def publish(linecache, filename):
    """Give one cell to linecache; without a time stamp it is never checked against a file."""
    code = sources[filename][1]
    linecache.cache[filename] = (len(code), None, code.splitlines(True), filename)


def publish_all(linecache):
    """linecache was imported just now: give it every cell so far."""
    for filename in sources:
        publish(linecache, filename)


def compile_cell(code, filename):
    """A list of (code object, does its value count as the cell's result)."""
    parts = _cut(code, filename)
    if parts is None:
        from cob import tree

        parts = tree.compile_cell(code, filename)
    return parts


def compile_part(source, filename, mode):
    """Compile with top-level await and the ``__future__`` imports of earlier cells."""
    global future_flags
    compiled = compile(source, filename, mode, TOP_LEVEL_AWAIT | future_flags, True)
    future_flags |= compiled.co_flags & FUTURES
    return compiled


def _cut(code, filename):
    """Cut before the last line that starts in column 0; None if that is not a statement."""
    start = end = len(code)
    while True:
        start = code.rfind("\n", 0, end) + 1
        first = code[start:start + 1]
        if first and first not in " \t\f#\r\n":
            break
        if start == 0:
            break
        end = start - 1
    if first in (")", "]", "}", "*", "@", ""):
        return None  # only the tree can tell
    flags_before = future_flags
    last = code[start:]
    try:
        parts = [(compile_part(code[:start], filename, "exec"), False)] if start else []
        last = "\n" * code.count("\n", 0, start) + last if start else last
        try:
            parts.append((compile_part(last, filename, "eval"), True))
        except SyntaxError:
            if ";" in last:
                raise
            parts.append((compile_part(last, filename, "exec"), False))
    except (SyntaxError, ValueError, OverflowError):
        _restore(flags_before)
        return None
    return parts


def _restore(flags):
    global future_flags
    future_flags = flags
