"""How the types of the standard library are printed, as IPython prints them."""

import re
import sys
import types
from collections import Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque


def choose(value):
    """The printer for a value: a function of (value, printer, is it inside itself)."""
    kind = type(value)
    exact = _PRINTERS.get(kind)
    if exact is not None:
        return exact
    mro = getattr(kind, "__mro__", (kind, object))
    for base in mro:
        found = _PRINTERS.get(base)
        if found is not None:
            return found
        members = base.__dict__
        if base is not object and callable(members.get("_repr_pretty_")):
            return _by_method
        if base is not object and callable(members.get("__repr__")):
            return _by_repr
    return _default


def _by_method(value, p, cycle):
    value._repr_pretty_(p, cycle)


def _by_repr(value, p, cycle):
    lines = repr(value).splitlines()
    with p.group():
        for position, line in enumerate(lines):
            if position:
                p.break_()
            p.text(line)


def _default(value, p, cycle):
    if type(value).__repr__ is not object.__repr__:
        _by_repr(value, p, cycle)
        return
    kind = type(value)
    p.text(f"<{_type_name(kind)} at 0x{id(value):x}>")


def _type_name(kind):
    module, name = getattr(kind, "__module__", None), getattr(kind, "__qualname__", kind.__name__)
    return name if module in (None, "builtins", "__builtin__", "exceptions") else f"{module}.{name}"


def _sequence(start, end):
    def show(value, p, cycle):
        if type(value).__repr__ not in _OWN_REPRS:
            _by_repr(value, p, cycle)
            return
        if cycle:
            p.text(start + "..." + end)
            return
        step = len(start)
        p.begin_group(step, start)
        _items(value, p)
        if len(value) == 1 and isinstance(value, tuple):
            p.text(",")
        p.end_group(step, end)

    return show


def _items(values, p):
    for position, item in enumerate(values):
        if p.max_seq_length and position >= p.max_seq_length:
            p.text(",")
            p.breakable()
            p.text("...")
            return
        if position:
            p.text(",")
            p.breakable()
        p.pretty(item)


def _set(start, end):
    def show(value, p, cycle):
        if type(value).__repr__ not in _OWN_REPRS:
            _by_repr(value, p, cycle)
        elif cycle:
            p.text(start + "..." + end)
        elif not value:
            p.text(type(value).__name__ + "()")
        else:
            step = len(start)
            p.begin_group(step, start)
            items = value
            if not (p.max_seq_length and len(value) >= p.max_seq_length):
                try:
                    items = sorted(value)
                except Exception:  # members that have no order keep the set's
                    items = value
            _items(items, p)
            p.end_group(step, end)

    return show


def _mapping(start, end):
    def show(value, p, cycle):
        if type(value).__repr__ not in _OWN_REPRS:
            _by_repr(value, p, cycle)
            return
        if cycle:
            p.text("{...}")
            return
        step = len(start)
        p.begin_group(step, start)
        for position, key in enumerate(value):
            if p.max_seq_length and position >= p.max_seq_length:
                p.text(",")
                p.breakable()
                p.text("...")
                break
            if position:
                p.text(",")
                p.breakable()
            p.pretty(key)
            p.text(": ")
            p.pretty(value[key])
        p.end_group(step, end)

    return show


def _call(name, *arguments):
    """A printer that shows a constructor call with the given parts of the value."""

    def show(value, p, cycle):
        opening = (name or type(value).__name__) + "("
        with p.group(len(opening), opening, ")"):
            if cycle:
                p.text("...")
                return
            shown = [part for part in (get(value) for get in arguments) if part is not _NOTHING]
            for position, part in enumerate(shown):
                if position:
                    p.text(",")
                    p.breakable()
                p.pretty(part) if not isinstance(part, _Keyword) else part.show(p)

    return show


class _Keyword:
    def __init__(self, name, value):
        self.name, self.value = name, value

    def show(self, p):
        with p.group(len(self.name) + 1, self.name + "="):
            p.pretty(self.value)


_NOTHING = object()


def _type(value, p, cycle):
    # a metaclass with a repr of its own decides for itself
    if [m for m in type.__dict__["__mro__"].__get__(type(value)) if "__repr__" in vars(m)][:1] != [type]:
        _by_repr(value, p, cycle)
        return
    p.text(_type_name(value))


def _function(value, p, cycle):
    name = getattr(value, "__qualname__", value.__name__)
    module = value.__module__
    if module and module not in ("__builtin__", "builtins", "exceptions"):
        name = module + "." + name
    try:
        import inspect

        name += str(inspect.signature(value))
    except Exception:  # many built-in functions have no signature
        pass
    p.text(f"<function {name}>")


def _exception(value, p, cycle):
    name = getattr(type(value), "__qualname__", type(value).__name__)
    if type(value).__module__ not in ("exceptions", "builtins"):
        name = f"{type(value).__module__}.{name}"
    with p.group(len(name) + 1, name + "(", ")"):
        for position, argument in enumerate(getattr(value, "args", ())):
            if position:
                p.text(",")
                p.breakable()
            p.pretty(argument)


def _pattern(value, p, cycle):
    p.text("re.compile(")
    shown = repr(value.pattern)
    if shown[:1] in "uU":
        shown = shown[1:]
    p.text("r" + shown.replace("\\\\", "\\"))
    names = [
        f"re.{name}"
        for name in ("IGNORECASE", "LOCALE", "MULTILINE", "DOTALL", "UNICODE", "VERBOSE", "DEBUG")
        if value.flags & getattr(re, name)
    ]
    if names:
        p.text(",")
        p.breakable()
        p.text("|".join(names))
    p.text(")")


def _namespace(value, p, cycle):
    name = "namespace" if type(value) is types.SimpleNamespace else type(value).__name__
    with p.group(len(name) + 1, name + "(", ")"):
        if cycle:
            p.text("...")
            return
        for position, (key, item) in enumerate(value.__dict__.items()):
            if position:
                p.text(",")
                p.breakable()
            _Keyword(key, item).show(p)


def _super(value, p, cycle):
    p.begin_group(8, "<super: ")
    p.pretty(value.__thisclass__)
    p.text(",")
    p.breakable()
    p.pretty(value.__self__)
    p.end_group(8, ">")


def _environ(value, p, cycle):
    p.begin_group(8, "environ{")
    for position, (key, item) in enumerate(value.items()):
        if position:
            p.text(",")
            p.breakable()
        p.pretty(key)
        p.text(": ")
        p.pretty(item)
    p.end_group(8, "}")


_OWN_REPRS = {kind.__repr__ for kind in (list, tuple, set, frozenset, dict, types.MappingProxyType, UserList)}

_PRINTERS = {
    int: _by_repr, float: _by_repr, str: _by_repr, bytes: _by_repr, bool: _by_repr,
    list: _sequence("[", "]"),
    tuple: _sequence("(", ")"),
    set: _set("{", "}"),
    frozenset: _set("frozenset({", "})"),
    dict: _mapping("{", "}"),
    types.MappingProxyType: _mapping("mappingproxy({", "})"),
    type: _type,
    types.FunctionType: _function,
    types.BuiltinFunctionType: _function,
    types.MethodType: _by_repr,
    types.SimpleNamespace: _namespace,
    BaseException: _exception,
    re.Pattern: _pattern,
    super: _super,
    slice: _by_repr,
    range: _by_repr,
    type(sys.stdout): _by_repr,
    defaultdict: _call(None, lambda v: v.default_factory, lambda v: dict(v)),
    OrderedDict: _call(None, lambda v: list(v.items()) if v else _NOTHING),
    Counter: _call(None, lambda v: dict(v.most_common()) if v else _NOTHING),
    deque: _call(
        None, lambda v: list(v), lambda v: _NOTHING if v.maxlen is None else _Keyword("maxlen", v.maxlen)
    ),
    UserDict: _by_repr,
    UserList: _call(None, lambda v: v.data),
    UserString: _by_repr,
    type(__import__("os").environ): _environ,
}
