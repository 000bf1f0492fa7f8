"""What plain pickle saves by its name, or not at all, and a session needs whole.

Functions and classes of ``__main__``, and those that can be imported from
nowhere. A function's variables are the session's own: it is bound to the live
ones when it is loaded, never to copies. Recursion (a function in its own closure,
a class in its own method) is pickle's own business: whoever is made meanwhile in
memory wins.
"""

import functools
import gc
import io
import marshal
import sys
import types
from importlib.util import MAGIC_NUMBER

from cob.bundle import arrays, blame, rebuild

HEAP_TYPE, IMMUTABLE_TYPE = 1 << 9, 1 << 8
_SETTABLE = frozenset(("__doc__", "__annotations__", "__abstractmethods__", "__type_params__"))
MAIN = ("__main__", "__mp_main__")
_name = type.__dict__["__qualname__"].__get__
_module = type.__dict__["__module__"].__get__

CONSTANT = set()  # types whose instances never change, and hold nothing that does
_CONSTANT_NAMES = {
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"), "decimal": ("Decimal",),
    "fractions": ("Fraction",), "uuid": ("UUID",), "pathlib": ("PosixPath", "PurePosixPath"), "re": ("Pattern",),
    "logging": ("Logger", "RootLogger"),
}


def learn():
    """Look up what depends on the modules that are loaded."""
    for module, names in _CONSTANT_NAMES.items():
        CONSTANT.update(vars(sys.modules[module])[name] for name in names if name in vars(sys.modules.get(module, sys)))


def is_constant(kind):
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, (numpy.generic, numpy.dtype)) and not issubclass(kind, numpy.void)


def is_importable(module, path, value):
    """Whether another interpreter finds this very object under its name."""
    if type(module) is not str or module in MAIN or type(path) is not str:
        return False
    found = sys.modules.get(module)
    if found is None or not is_module_importable(found):
        return False
    try:
        return functools.reduce(getattr, path.split("."), found) is value
    except Exception:  # a module may answer in its own way
        return False


def is_module_importable(module):
    name = getattr(module, "__name__", None)
    if type(name) is not str or name in MAIN:
        return False
    return sys.modules.get(name) is module and (
        getattr(module, "__spec__", None) is not None or name in sys.builtin_module_names
    )


def is_by_value(value):
    """Whether a class or function has to be saved itself."""
    if isinstance(value, type):
        flags = value.__flags__
        if not flags & HEAP_TYPE or flags & IMMUTABLE_TYPE:
            return False
        return not is_importable(_module(value), _name(value), value)
    return not is_importable(value.__module__, value.__qualname__, value)


def surroundings(function, namespace):
    """What stands for a function's variables: see ``rebuild.function``."""
    variables = function.__globals__
    if variables is namespace:
        return None
    name = variables.get("__name__")
    module = sys.modules.get(name) if type(name) is str else None
    if module is not None and getattr(module, "__dict__", None) is variables and is_module_importable(module):
        return name
    return variables


# --- Functions ----------------------------------------------------------------------------------------------


def function(pickler, value):
    if not is_by_value(value):
        return NotImplemented
    attributes = {
        name: getattr(value, name)
        for name in ("__module__", "__qualname__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__",
                     "__type_params__")
        if getattr(value, name, None)
    }
    attributes.setdefault("__module__", value.__module__)
    where = surroundings(value, pickler.saving.namespace)
    if type(where) is str:
        pickler.saving.modules.add(where)
    arguments = value.__code__, where, value.__name__, value.__closure__
    return rebuild.function, arguments, (attributes, dict(value.__dict__)), None, None, rebuild.fill_function


def code(pickler, value):
    pickler.saving.files.add(value.co_filename)
    return rebuild.code, (MAGIC_NUMBER, marshal.dumps(value))


def cell(pickler, value):
    try:
        contents = (value.cell_contents,)
    except ValueError:  # nothing was assigned yet
        return rebuild.cell, ()
    return rebuild.cell, (), contents, None, None, rebuild.fill_cell


def method(pickler, value):
    return types.MethodType, (value.__func__, value.__self__)


def cached(pickler, value):
    if is_importable(value.__module__, value.__qualname__, value):
        return NotImplemented
    variables = dict(value.__dict__)
    inner = variables.pop("__wrapped__")
    return rebuild.cached, (inner, value.cache_parameters()), variables, None, None, rebuild.fill


def wrapper(pickler, value):
    return type(value), (value.__func__,)


def property_(pickler, value):
    return property, (value.fget, value.fset, value.fdel, value.__doc__)


def cached_property(pickler, value):
    """Up to 3.11 it has a lock."""
    return functools.cached_property, (value.func,), {"attrname": value.attrname}, None, None, rebuild.fill


def proxy(pickler, value):
    return types.MappingProxyType, tuple(gc.get_referents(value)[:1])


def dict_view(pickler, value):
    return rebuild.dict_view, (gc.get_referents(value)[0], type(value).__name__.removeprefix("dict_"))


def memory(pickler, value):
    if type(value.obj) in (bytes, bytearray) and value.format == "B" and value.nbytes == len(value.obj):
        return memoryview, (value.obj,)
    raise blame.Unsavable(value, "a view of memory")


def module(pickler, value):
    if value is sys.modules["__main__"]:
        return rebuild.module, ("__main__",)
    if is_module_importable(value):
        pickler.saving.modules.add(value.__name__)
        return rebuild.module, (value.__name__,)
    own = {name: part for name, part in vars(value).items() if name not in ("__builtins__", "__loader__", "__spec__")}
    return types.ModuleType, (value.__name__,), own, None, None, rebuild.fill


def type_variable(pickler, value):
    if is_importable(value.__module__, value.__name__, value):
        return NotImplemented
    kind, constraints, options = type(value).__name__, (), {}
    if kind == "NewType":
        constraints = (value.__supertype__,)
    elif kind == "TypeAliasType":
        constraints, options = (value.__value__,), {"type_params": value.__type_params__}
        return rebuild.type_variable, (kind, value.__name__, constraints, options)  # its module cannot be set
    elif kind != "TypeVarTuple":
        constraints = getattr(value, "__constraints__", ())
        options = {"bound": value.__bound__, "covariant": value.__covariant__, "contravariant": value.__contravariant__}
        if getattr(value, "__infer_variance__", False):
            options["infer_variance"] = True
    if hasattr(value, "has_default") and value.has_default():
        options["default"] = value.__default__
    arguments = kind, value.__name__, constraints, options
    return rebuild.type_variable, arguments, {"__module__": value.__module__}, None, None, rebuild.fill


def sentinel(pickler, value):
    """The kinds of a dataclass's fields are known by identity."""
    return rebuild.attribute, ("dataclasses", value.name)


def missing(pickler, value):
    return rebuild.attribute, ("dataclasses", "MISSING")


def weak(pickler, value):
    """Whoever is held by nobody else is gone after the load, as it should be."""
    contents = dict(value.items()) if hasattr(value, "items") else list(value)
    return type(value), (contents,)


# --- Classes ------------------------------------------------------------------------------------------------


def class_(pickler, value):
    if not is_by_value(value):
        pickler.saving.modules.add(_module(value))
        return NotImplemented
    own = vars(value)
    first = {"__module__": own.get("__module__"), "__qualname__": _name(value)}
    if "__slots__" in own:
        first["__slots__"] = tuple(name for name, part in own.items() if _is_slot(part) and part.__objclass__ is value)
    if "__orig_bases__" in own:
        first["__orig_bases__"] = own["__orig_bases__"]
    attributes = {name: part for name, part in own.items() if not _is_slot(part) and name != "_abc_impl" and name not in first}
    first.update((name, attributes.pop(name)) for name in list(attributes) if _is_guarded(type(value), name))
    arguments = type(value), value.__name__, value.__bases__, first
    return rebuild.new_class, arguments, (attributes, _registered(value)), None, None, rebuild.fill_class


def _is_guarded(metaclass, name):
    """Whether it cannot be set later, because the metaclass means something else by this name."""
    if name in _SETTABLE:
        return False
    for kind in metaclass.__mro__:
        if name in vars(kind):
            return hasattr(type(vars(kind)[name]), "__set__")
    return False


def _is_slot(part):
    """``__dict__`` and ``__weakref__`` as well; up to 3.10 a dataclass with slots has those of the class it replaces."""
    kind = type(part)
    return kind is types.MemberDescriptorType or kind is types.GetSetDescriptorType


def _registered(value):
    abstract = sys.modules.get("_abc")
    if abstract is None or "_abc_impl" not in vars(value):
        return []
    return [other for other in (reference() for reference in abstract._get_dump(value)[0]) if other is not None]


def member(pickler, value):
    kind = type(value)._member_type_
    arguments = kind.__getnewargs__(value) if hasattr(kind, "__getnewargs__") else ()
    if kind is not object and not arguments:
        raise blame.Unsavable(value, f"a member of an enumeration of {kind.__name__}")
    return rebuild.member, (type(value), kind, arguments), dict(vars(value)), None, None, rebuild.fill_member


def instance(pickler, value):
    """Of a class with its own way of being saved: a bare name would be looked for in vain."""
    reduced = value.__reduce_ex__(5)
    if type(reduced) is str:
        raise blame.Unsavable(value, f"known to its class as {reduced!r} only")
    return reduced


def _unsavable(words, pickler, value):
    raise blame.Unsavable(value, words)


EXACT = {
    types.FunctionType: function, types.CodeType: code, types.CellType: cell, types.MethodType: method,
    type(functools.lru_cache(len)): cached, classmethod: wrapper, staticmethod: wrapper, property: property_,
    functools.cached_property: cached_property, types.MappingProxyType: proxy, type({}.keys()): dict_view,
    type({}.values()): dict_view, type({}.items()): dict_view, memoryview: memory, types.ModuleType: module,
}
_BY_NAME = {
    "typing": (type_variable, ("TypeVar", "ParamSpec", "TypeVarTuple", "NewType", "TypeAliasType")),
    "weakref": (weak, ("WeakSet", "WeakKeyDictionary", "WeakValueDictionary")),
    "dataclasses": (sentinel, ("_FIELD_BASE",)),
}


def reducer_of(kind):
    """How instances of a type are saved; None: as pickle does."""
    if issubclass(kind, type):
        return class_
    words = blame.words_of(kind)
    if words is not None and not issubclass(kind, (io.BytesIO, io.StringIO)):
        return functools.partial(_unsavable, words)
    for name, (reduce, names) in _BY_NAME.items():
        known = sys.modules.get(name)
        if known is not None and any(kind is getattr(known, each, None) for each in names):
            return reduce
    fields = sys.modules.get("dataclasses")
    if fields is not None and kind is type(fields.MISSING):
        return missing
    if issubclass(kind, types.ModuleType):
        return module
    found = arrays.reducer_of(kind)
    if found is not None or not is_by_value(kind):
        return found
    enumerations = sys.modules.get("enum")
    if enumerations is not None and issubclass(kind, enumerations.Enum):
        return member
    if kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__:
        return instance
    return None
