"""What an object is: signature, documentation, file, source; IPython's layout, with or without IPython."""

import inspect
import re

from cob import cells, encoding, engine, highlight, lookup

RED, RESET = "\x1b[31m", "\x1b[39m"
LINE_MAX = 75  # a longer signature gets one line per parameter
TEXT_MAX = 200  # of the string form
NAME = re.compile(r"[^\W\d]\w*(?:\s*\.\s*[^\W\d]\w*)*")
NOTHING = '{"status":"ok","found":false,"data":{},"metadata":{}}'


def reply(code, cursor, detail):
    """The content of an inspect_reply."""
    try:
        data = _data(code, cursor, detail)
    except (Exception, KeyboardInterrupt):  # a broken object has no description; an interrupt: no longer wanted
        return NOTHING
    if data is None:
        return NOTHING
    return encoding.dumps({"status": "ok", "found": True, "data": data, "metadata": {}})


def _data(code, cursor, detail):
    for name in names_at(code, cursor):
        if engine.shell is not None:
            try:
                return engine.shell.object_inspect_mime(name, detail_level=detail)
            except KeyError:
                continue
        text = describe(name, detail)
        if text is not None:
            return {"text/plain": text}
    return None


def names_at(code, cursor):
    """The dotted name under the cursor, else the function whose call the cursor is in."""
    begin = code.rfind("\n", 0, cursor) + 1
    end = code.find("\n", cursor)
    line = code[begin: end if end >= 0 else len(code)]
    column = cursor - begin
    magic = re.match(r"\s*(%%?\w+)", line)
    if magic and column <= magic.end():
        yield magic[1]
    for match in NAME.finditer(line):
        if match.start() <= column <= match.end():
            # "a.b.c" with the cursor in b is about a.b
            rest = re.search(r"\s*\.", line[column: match.end()])
            yield re.sub(r"\s", "", line[match.start(): column + rest.start() if rest else match.end()])
    depth, position = 0, cursor - 1
    while position >= 0:
        if code[position] in ")]}":
            depth += 1
        elif code[position] in "([{":
            if depth == 0 and code[position] == "(":
                called = re.search(NAME.pattern + r"\s*$", code[:position])
                if called:
                    yield re.sub(r"\s", "", called[0])
            depth = max(depth - 1, 0)
        position -= 1


def page(name, level):
    """``name?`` where IPython is missing: the description goes to the pager of the front end."""
    text = describe(name, level - 1) if re.fullmatch(NAME, name) else None
    if text is None:
        print(f"Object `{name}` not found.")
        return
    engine.payload.append({"source": "page", "data": {"text/plain": text}, "start": 0})


def describe(name, detail):
    """The text about a name, None if there is no such object."""
    names = name.split(".")
    found, value = lookup.evaluate(names)
    if not found:
        if len(names) == 1:
            return None
        found, value = _property(names)
        if not found:
            return None
    return _laid_out(_fields(value, name, detail))


def _property(names):
    """The property object itself: its value would be computed by user code."""
    found, owner = lookup.evaluate(names[:-1])
    member = inspect.getattr_static(owner, names[-1], None) if found else None
    return member is not None, member


def _fields(value, name, detail):
    """[(title, text)] in IPython's order."""
    is_class = isinstance(value, type)
    is_function = inspect.isroutine(value)
    fields = []
    signature = _signature(value, name) if callable(value) else None
    if signature and (is_function or is_class):
        fields.append(("Init signature" if is_class else "Signature", signature))
    elif signature and type(value).__call__ is not None:
        fields.append(("Call signature", signature))
    if not is_function and not is_class:
        fields += [("Type", type(value).__name__), ("String form", _string_form(value))]
        try:
            fields.append(("Length", str(len(value))))
        except Exception:  # has no length
            pass
        if inspect.ismodule(value):
            fields.append(("File", _file(value)))
    source = _source(value) if detail else None
    if source:
        fields.append(("Source", source))
    else:
        fields.append(("Docstring", _doc(value) or "<no docstring>"))
    if is_class or not (is_function or inspect.ismodule(value)):
        kind = value if is_class else type(value)
        init = _doc(kind.__init__)
        if init and init != _doc(object.__init__) and not source:
            fields.append(("Init docstring", init))
    if is_function or is_class:
        fields += [("File", _file(value)), ("Type", type(value).__name__)]
    if is_class:
        fields.append(("Subclasses", _subclasses(value)))
    return [(title, text) for title, text in fields if text is not None]


def _signature(value, name):
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):
        return None
    text = f"{name}{signature}"
    if len(text) > LINE_MAX:
        parts = [f"    {part},\n" for part in _parameters(signature)]
        arrow = str(signature.replace(parameters=()))[2:]
        text = f"{name}(\n{''.join(parts)}){arrow}"
    return "\n".join(highlight.colored(line) for line in text.split("\n"))


def _parameters(signature):
    parts, keyword_only = [], False
    kinds = inspect.Parameter
    values = list(signature.parameters.values())
    for position, parameter in enumerate(values):
        if parameter.kind is kinds.KEYWORD_ONLY and not keyword_only:
            if not any(other.kind is kinds.VAR_POSITIONAL for other in values[:position]):
                parts.append("*")
            keyword_only = True
        parts.append(str(parameter))
        following = values[position + 1].kind if position + 1 < len(values) else None
        if parameter.kind is kinds.POSITIONAL_ONLY and following is not kinds.POSITIONAL_ONLY:
            parts.append("/")
    return parts


def _doc(value):
    try:
        return inspect.getdoc(value)
    except Exception:  # __doc__ may be a property of user code
        return None


def _string_form(value):
    text = str(value)
    if len(text) > TEXT_MAX:
        text = text[: TEXT_MAX // 2] + " <...> " + text[-TEXT_MAX // 2:]
    return text


def _file(value):
    try:
        path = inspect.getsourcefile(value) or inspect.getfile(value)
    except (TypeError, OSError):
        return None
    from cob import frames

    known = cells.sources.get(path)
    return f"Cell In[{known[0]}]" if known else frames.short(path)


def _source(value):
    try:
        text = inspect.getsource(value if not isinstance(value, property) else value.fget)
    except (TypeError, OSError, IndexError):
        return None
    return "\n".join(highlight.colored(line) for line in text.rstrip().split("\n"))


def _subclasses(kind):
    names = [child.__name__ for child in type.__subclasses__(kind)]
    return ", ".join(names[:10] + ["..."] if len(names) > 10 else names)


def _laid_out(fields):
    width = max(len(title) for title, _ in fields) + 1
    lines = []
    for title, text in fields:
        head = f"{RED}{title}:{RESET}" + " " * (width - len(title) - 1)
        lines.append(f"{head}\n{text}" if "\n" in text else f"{head} {text}")
    return "\n".join(lines)
