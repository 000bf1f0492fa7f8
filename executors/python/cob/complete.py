"""Completion on the live namespace, without running user code.

Names, attributes, modules, keyword arguments, dictionary keys and paths are
answered here in well under a millisecond. What is not understood here (magics,
calls in the expression, subscripts of unknown types) goes to IPython, whose
completer also knows jedi.
"""

import builtins
import keyword
import re

from cob import encoding, engine, lookup

MATCHES_MAX = 5000
CHAIN = re.compile(r"((?:[^\W\d]\w*\s*\.\s*)+)([^\W\d]\w*)?$")
WORD = re.compile(r"[^\W\d]\w*$")
KEY = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\[\s*(\w*|[\"'][^\"'\]]*)$")
CALL = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\(([^()]*)$")
FROM = re.compile(r"^\s*from\s+([.\w]+)\s+import\s+(?:\(?\s*(?:[\w]+(?:\s+as\s+\w+)?\s*,\s*)*)(\w*)$")
IMPORT = re.compile(r"^\s*(?:from|import(?:\s+[\w.]+(?:\s+as\s+\w+)?\s*,)*)\s+([\w.]*)$")
BINDING = re.compile(
    r"\b(?:def|class|as|for|import)\s+([^\W\d]\w*)|^[ \t]*([^\W\d]\w*)\s*(?::[^=\n]*)?=(?!=)", re.MULTILINE
)
PATH = re.compile(r"[\"']([^\"'\n]*)$")


def reply(code, cursor):
    """The content of a complete_reply."""
    try:
        start, found = matches(code, cursor)
    except (Exception, KeyboardInterrupt):  # completion must never fail; an interrupt means: no longer wanted
        start, found = cursor, []
    found = found[:MATCHES_MAX]
    types = [{"start": start, "end": cursor, "text": text, "type": kind} for text, kind in found]
    return encoding.dumps({
        "status": "ok", "matches": [text for text, _ in found], "cursor_start": start, "cursor_end": cursor,
        "metadata": {"_jupyter_types_experimental": types},
    })


def matches(code, cursor):
    """(where the replaced text begins, [(text, type)])."""
    before = code[:cursor]
    line = before.rpartition("\n")[2]
    if line.lstrip()[:1] not in ("%", "!", "?"):
        start, found = _own(before, line, cursor)
        if found:
            return start, _without_closing(found, code[cursor:cursor + 1])
        if lookup.inside_string(before) and engine.shell is None:
            return cursor, []
    return _by_ipython(code, cursor)


def _without_closing(found, after):
    """Front ends close quotes themselves: do not add a second one."""
    if after not in ('"', "'") or not after:
        return found
    return [(text.removesuffix(after) if kind == "dict key" else text, kind) for text, kind in found]


def _own(before, line, cursor):
    module = FROM.match(line)
    if module:
        return cursor - len(module[2]), lookup.members_of_module(module[1], module[2])
    module = IMPORT.match(line)
    if module:
        prefix = module[1].rpartition(".")[2]
        found = lookup.modules(module[1])
        if line.lstrip().startswith("from") and not found:
            return cursor, []
        return cursor - len(prefix), found
    if lookup.inside_string(before):
        return _in_string(line, cursor)
    key = KEY.search(line)
    if key:
        found = _keys(key[1], key[2])
        if found:
            return cursor - len(key[2]), found
    chain = CHAIN.search(line)
    if chain and line[: chain.start()][-1:] not in (".", ")", "]", "}", '"', "'"):
        return _attributes(chain[1], chain[2] or "", cursor)
    if line.rstrip().endswith((").", "].", "}.")) or re.search(r"[)\]}\"']\s*\.\s*\w*$", line):
        return _of_literal(line, cursor)
    word = WORD.search(line)
    prefix = word[0] if word else ""
    if re.search(r"\.\s*$", line[: len(line) - len(prefix)]):
        return cursor, []
    found = _arguments(line, prefix) + _names(prefix, before[: len(before) - len(prefix)])
    return cursor - len(prefix), found


def _attributes(chain, prefix, cursor):
    names = [part.strip() for part in chain.split(".") if part.strip()]
    known, value = lookup.evaluate(names)
    if not known:
        return cursor, []
    return cursor - len(prefix), lookup.members(value, prefix)


def _of_literal(line, cursor):
    """Attributes of a string, and of lists, tuples and dictionaries without calls in them."""
    end = re.search(r"\.\s*(\w*)$", line)
    known, value = lookup.literal(line[: end.start()])
    if not known:
        return cursor, []
    return cursor - len(end[1]), lookup.members(value, end[1])


def _names(prefix, text):
    """Names of the session, of builtins, keywords, and what the cell itself binds."""
    names = {next(filter(None, match)): "instance" for match in BINDING.findall(text)}
    for name in keyword.kwlist:
        names[name] = "keyword"
    for space in (vars(builtins), engine.namespace):
        for name, value in space.items():
            names[name] = lookup.kind(value)
    return lookup.ranked(((name, kind) for name, kind in names.items()), prefix)


def _arguments(line, prefix):
    """``name=`` for the call that the cursor is in."""
    call = CALL.search(line)
    if not call:
        return []
    known, function = lookup.evaluate(call[1].split("."))
    if not known or not callable(function):
        return []
    given = set(re.findall(r"(\w+)\s*=", call[2]))
    return [
        (f"{name}=", "param") for name in lookup.parameters(function)
        if name.startswith(prefix) and name not in given
    ]


def _in_string(line, cursor):
    key = KEY.search(line)
    if key:
        found = _keys(key[1], key[2])
        if found:
            return cursor - len(key[2]), found
    path = PATH.search(line)
    if not path:
        return cursor, []
    return cursor - len(path[1].rpartition("/")[2]), lookup.paths(path[1])


def _keys(expression, prefix):
    """Keys of a dictionary, columns of a frame."""
    known, value = lookup.evaluate(expression.split("."))
    if not known:
        return []
    quote = prefix[:1] if prefix[:1] in "\"'" and prefix else ""
    found = []
    for key in lookup.keys(value):
        text = repr(key)
        if isinstance(key, str):
            if quote:
                text = quote + key.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote
            elif prefix:
                continue
        elif quote:
            continue
        if text.startswith(prefix):
            found.append((text, "dict key"))
    return found


def _by_ipython(code, cursor):
    """IPython's completer, if it is here and there is anything to complete."""
    before = code[:cursor].rpartition("\n")[2]
    if not before.strip():
        return cursor, []
    from cob import ipython

    shell = ipython.load()
    if shell is None:
        return cursor, []
    from IPython.core.completer import provisionalcompleter, rectify_completions

    with provisionalcompleter():
        found = list(rectify_completions(code, shell.Completer.completions(code, cursor)))
    found = [item for item in found if item.end == cursor]
    if not found:
        return cursor, []
    return found[0].start, [(item.text, item.type or "") for item in found]

