"""What a session holds: names, types and sizes, never a value.

No code of the user's runs for it: a class is known by `type()`, its name is read
from the type itself, and only exact builtin types, arrays and frames whose class
was defined by numpy or pandas are asked how large they are.
"""

import sys

NAMES_MAX = 1000
NAME_CHARACTERS_MAX = 200
OURS = frozenset(("In", "Out", "_", "__", "___", "_i", "_ii", "_iii", "_dh", "_oh", "_ih", "exit", "quit", "get_ipython"))

_LENGTHS = (str, bytes, bytearray, list, tuple, dict, set, frozenset, range)
_type_name = type.__dict__["__name__"].__get__
_type_module = type.__dict__["__module__"].__get__


def summary(namespace):
    """A list of dicts; what was defined last stands last, and beyond the bound the oldest are left out."""
    entries = []
    for name, value in list(namespace.items())[::-1]:
        if type(name) is not str or name in OURS or name.startswith("__") or is_result(name):
            continue
        if len(entries) == NAMES_MAX:
            break
        entries.append(_entry(name, value))
    return entries[::-1]


def is_result(name):
    """`_7` and `_i7`: the history's names."""
    return name.startswith("_") and name.lstrip("_i").isdigit()


def _entry(name, value):
    kind = type(value)
    entry = {"name": name[:NAME_CHARACTERS_MAX], "type": type_name(kind)}
    if _is_one_of(kind, _LENGTHS):
        entry["len"] = len(value)
    elif kind is type(sys):
        pass
    else:
        entry.update(_sizes(kind, value))
    return entry


def _is_one_of(kind, kinds):
    """By identity: to compare classes may run code of a metaclass."""
    return any(kind is known for known in kinds)


def type_name(kind):
    """The qualified name of a class, whatever its metaclass says."""
    name = _type_name(kind)
    module = _type_module(kind)
    if type(module) is not str or module in ("builtins", "__main__"):
        return name[:NAME_CHARACTERS_MAX]
    return f"{module}.{name}"[:NAME_CHARACTERS_MAX]


def _sizes(kind, value):
    """Of arrays and frames: by what numpy has in C. A subclass may be anybody's."""
    numpy = sys.modules.get("numpy")
    array = getattr(numpy, "ndarray", None)
    if array is not None and kind is array:
        return _of_array(value)
    pandas = sys.modules.get("pandas")
    frames = (getattr(pandas, "DataFrame", None), getattr(pandas, "Series", None))
    if pandas is None or not _is_one_of(kind, frames):
        return {}
    # Plain objects that pandas keeps in the instance itself; no property is asked for.
    manager = vars(value).get("_mgr")
    axes = getattr(manager, "axes", None)
    if type(axes) is not list:
        return {}
    return {"shape": [len(axis) for axis in reversed(axes)]}


def _of_array(value):
    return {"shape": list(value.shape), "dtype": value.dtype.str, "nbytes": value.nbytes}
