"""Looking at live objects without running user code: for completion and inspection.

Attributes are read only where reading cannot do anything: from modules and
classes, from the dictionaries of instances, from classes without
``__getattr__``; properties are named, not evaluated.
"""

import builtins
import os
import sys
import types

from cob import engine

TRUSTED = ("pandas", "numpy", "polars", "matplotlib", "torch", "xarray")  # their properties are cheap
KEYS_MAX = 2000


def evaluate(names):
    """(found, value) of a dotted name."""
    name, *rest = names
    for space in (engine.namespace, vars(builtins)):
        if name in space:
            value = space[name]
            break
    else:
        return False, None
    for name in rest:
        found, value = attribute(value, name)
        if not found:
            return False, None
    return True, value


def attribute(value, name):
    """(found, value) of one attribute, as far as reading it is safe."""
    kind = type(value)
    if isinstance(value, (types.ModuleType, type)) or _trusted(kind):
        try:
            return True, getattr(value, name)
        except Exception:  # an attribute that fails is one we do not have
            return False, None
    own = _dictionary(value)
    if name in own:
        return True, own[name]
    for base in kind.__mro__:
        if name in base.__dict__:
            member = base.__dict__[name]
            if isinstance(member, property) or _is_data_descriptor(member):
                return False, None
            try:
                return True, getattr(value, name)
            except Exception:
                return False, None
    return False, None


def _is_data_descriptor(member):
    slots = (types.MemberDescriptorType, types.GetSetDescriptorType)
    return hasattr(type(member), "__set__") and not isinstance(member, slots)


def _trusted(kind):
    return (getattr(kind, "__module__", None) or "").partition(".")[0] in TRUSTED


def _dictionary(value):
    try:
        own = object.__getattribute__(value, "__dict__")
    except Exception:
        return {}
    return own if isinstance(own, dict) else {}


def literal(text):
    """(found, value) of a literal that ends the text: a string, list, dictionary or number in brackets."""
    text = text.rstrip()
    if text[-1:] in "\"'":
        return True, ""
    pairs, depth = {")": "(", "]": "[", "}": "{"}, 0
    if text[-1:] not in pairs:
        return False, None
    for position in range(len(text) - 1, -1, -1):
        if text[position] in ")]}":
            depth += 1
        elif text[position] in "([{":
            depth -= 1
            if depth == 0:
                break
    before = text[:position].rstrip()
    if before and (before[-1].isalnum() or before[-1] in "_)]}\"'"):
        return _subscript(before, text[position:])
    try:
        from ast import literal_eval

        return True, literal_eval(text[position:])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False, None


def _subscript(before, index):
    """``name[0]`` and ``name["key"]`` of a plain list, tuple or dictionary."""
    import re

    name = re.search(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*$", before)
    if index[0] != "[" or not name:
        return False, None
    found, value = evaluate(name[0].split("."))
    if not found or type(value) not in (list, tuple, dict):
        return False, None
    try:
        from ast import literal_eval

        return True, value[literal_eval(index[1:-1].strip())]
    except Exception:  # not a literal, not a key
        return False, None


def members(value, prefix):
    """[(name, type)] of what ``value.`` can be followed by."""
    try:
        names = [name for name in dir(value) if isinstance(name, str) and name.startswith(prefix)]
    except Exception:  # a broken __dir__
        names = [name for name in object.__dir__(value) if name.startswith(prefix)]
    return ranked(((name, _member_kind(value, name)) for name in names if name.isidentifier()), prefix)


def _member_kind(value, name):
    if isinstance(value, types.ModuleType):
        return kind(vars(value).get(name))
    bases = value.__mro__ if isinstance(value, type) else type(value).__mro__
    for base in bases:
        members = getattr(base, "__dict__", {})
        if name in members:
            member = members[name]
            return "property" if isinstance(member, property) else kind(member)
    return "instance"


def ranked(found, prefix):
    """Sorted, names with underscores last and only if asked for."""
    found = [
        (name, what) for name, what in found
        if name.startswith(prefix) and (not name.startswith("_") or prefix.startswith("_"))
        and (not name.startswith("__") or not prefix or prefix.startswith("_"))
    ]
    return sorted(found, key=lambda item: (item[0].startswith("__"), item[0].startswith("_"), item[0]))


def kind(value):
    """The type of a completion, in jedi's words."""
    if isinstance(value, types.ModuleType):
        return "module"
    if isinstance(value, type):
        return "class"
    if isinstance(value, property):
        return "property"
    functions = (
        types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodDescriptorType,
        types.WrapperDescriptorType, types.MethodWrapperType, types.ClassMethodDescriptorType,
        staticmethod, classmethod,
    )
    return "function" if isinstance(value, functions) else "instance"


def parameters(function):
    """Names that can be passed by keyword."""
    from inspect import Parameter, signature

    try:
        found = signature(function).parameters.values()
    except (ValueError, TypeError):
        return []
    by_name = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [parameter.name for parameter in found if parameter.kind in by_name]


def keys(value):
    """Keys by which the value can be subscripted."""
    if isinstance(value, dict):
        found = dict.keys(value)
    elif _trusted(type(value)):
        if hasattr(type(value), "columns"):
            found = value.columns
        elif getattr(getattr(value, "dtype", None), "names", None):
            found = value.dtype.names
        else:
            return []
    elif callable(getattr(type(value), "_ipython_key_completions_", None)):
        found = value._ipython_key_completions_()
    else:
        return []
    from itertools import islice

    return [key for key in islice(found, KEYS_MAX) if isinstance(key, (str, int, float, bytes, tuple))]


_modules = {}  # folder -> (time stamp, names)


def modules(path):
    """[(name, "module")] for ``import path``."""
    package, _, prefix = path.rpartition(".")
    if package:
        folders = _folders(package)
        names = set().union(*(_in_folder(folder) for folder in folders))
    else:
        names = set(sys.builtin_module_names) | {name for name in sys.modules if "." not in name}
        names = names.union(*(_in_folder(folder or ".") for folder in sys.path))
    return ranked(((name, "module") for name in names if name.isidentifier()), prefix)


def _folders(package):
    """Where the submodules of a package are; nothing is imported for it."""
    module = sys.modules.get(package)
    if module is not None:
        return list(getattr(module, "__path__", ()))
    parent, _, name = package.rpartition(".")
    places = _folders(parent) if parent else [folder or "." for folder in sys.path]
    return [os.path.join(place, name) for place in places if os.path.isdir(os.path.join(place, name))]


def _in_folder(folder):
    try:
        stamp = os.stat(folder).st_mtime_ns
    except OSError:
        return set()
    known = _modules.get(folder)
    if known is not None and known[0] == stamp:
        return known[1]
    names = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, dot, rest = entry.name.partition(".")
                if not name.isidentifier() or name == "__pycache__":
                    continue
                if rest in ("py", "pyc") or rest.endswith("so") or (not dot and entry.is_dir()):
                    names.add(name)
    except OSError:
        pass  # unreadable, or not a folder (a zip file on sys.path)
    names.discard("__init__")
    _modules[folder] = (stamp, names)
    return names


def members_of_module(name, prefix):
    """[(name, type)] for ``from name import prefix``; a module that is not loaded is read, not run."""
    module = sys.modules.get(name)
    found = dict(modules(name + "."))
    if module is not None:
        found.update(members(module, prefix))
    else:
        found.update((text, "instance") for text in _names_in_source(name))
    return ranked(found.items(), prefix)


def _names_in_source(name):
    parent, _, last = name.rpartition(".")
    places = _folders(parent) if parent else [folder or "." for folder in sys.path]
    for place in places:
        for path in (os.path.join(place, last, "__init__.py"), os.path.join(place, last + ".py")):
            if os.path.isfile(path):
                return _top_level(path)
    return ()


def _top_level(path):
    import ast

    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(1 << 20))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ()
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def paths(text):
    """[(name, "path")] of files that begin with what is typed."""
    folder, _, prefix = text.rpartition("/")
    place = os.path.expanduser(folder + "/" if folder or text.startswith("/") else ".")
    found = []
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and (not entry.name.startswith(".") or prefix.startswith(".")):
                    found.append((entry.name + ("/" if entry.is_dir() else ""), "path"))
    except OSError:
        return []
    return sorted(found)


def inside_string(text):
    """Whether the end of the text is inside of a string literal."""
    quote, position = "", 0
    while position < len(text):
        if quote:
            if text[position] == "\\":
                position += 2
                continue
            if text.startswith(quote, position):
                position += len(quote)
                quote = ""
                continue
            if len(quote) == 1 and text[position] == "\n":
                quote = ""
        elif text[position] == "#":
            position = text.find("\n", position)
            if position < 0:
                return False
        elif text[position] in "\"'":
            quote = text[position] * 3 if text.startswith(text[position] * 3, position) else text[position]
            position += len(quote)
            continue
        position += 1
    return bool(quote)
