"""What the pickles of bundles call when they are loaded.

The names and arguments of these functions are part of every stored bundle: they
may be added to, and never change their meaning.
"""

import functools
import marshal
import sys
import types
from importlib import import_module
from importlib.util import MAGIC_NUMBER

next_blob = None  # while a component is loaded: reads its next blob into the given memory


def namespace():
    """The live variables of the session."""
    return sys.modules["__main__"].__dict__


def module(name):
    return import_module(name)


def attribute(module_name, path):
    """Something that stands in a module under another name than its own."""
    return functools.reduce(getattr, path.split("."), import_module(module_name))


def shell():
    from cob import ipython

    found = ipython.load()
    if found is None:
        raise RuntimeError("there is no IPython here")
    return found


# --- Functions ----------------------------------------------------------------------------------------------


def code(magic, data):
    if magic != MAGIC_NUMBER:
        raise RuntimeError("code that another version of Python compiled cannot run here")
    return marshal.loads(data)


def cell():
    return types.CellType()


def fill_cell(target, contents):
    (target.cell_contents,) = contents


def function(code, surroundings, name, closure):
    """``surroundings``: None for the session's variables, the name of a module, or the dictionary itself."""
    if surroundings is None:
        surroundings = namespace()
    elif type(surroundings) is str:
        surroundings = import_module(surroundings).__dict__
    return types.FunctionType(code, surroundings, name, None, closure)


def fill_function(target, state):
    attributes, variables = state
    for name, value in attributes.items():
        setattr(target, name, value)
    target.__dict__.update(variables)


def cached(target, parameters):
    return functools.lru_cache(**parameters)(target)


def dict_view(mapping, method):
    return getattr(mapping, method)()


def fill(target, state):
    """Attributes of whatever takes them in the plain way."""
    for name, value in state.items():
        setattr(target, name, value)


# --- Classes ------------------------------------------------------------------------------------------------


def new_class(metaclass, name, bases, first):
    """A class without its attributes. No hook sees it being made: they all saw the first one."""
    hooked = [base for base in _ancestors(bases) if "__init_subclass__" in vars(base)]
    hooks = []
    try:
        for base in hooked:
            hook = vars(base)["__init_subclass__"]
            try:
                type.__setattr__(base, "__init_subclass__", classmethod(_say_nothing))
            except TypeError:
                continue  # one of C's own, which does no harm
            hooks.append((base, hook))
        return type.__new__(metaclass, name, bases, first)
    finally:
        for base, hook in hooks:
            type.__setattr__(base, "__init_subclass__", hook)


def _ancestors(bases):
    """Without ``object``, each once."""
    found = {id(base): base for start in bases for base in type.mro(start) if base is not object}
    return found.values()


def _say_nothing(cls, **options):
    pass


def fill_class(target, state):
    attributes, registered = state
    for name, value in attributes.items():
        type.__setattr__(target, name, value)
    abstract = sys.modules.get("abc")
    if abstract is not None and issubclass(type(target), abstract.ABCMeta):
        methods = vars(target).get("__abstractmethods__")
        abstract._abc_init(target)
        if methods is not None:
            type.__setattr__(target, "__abstractmethods__", methods)
        for other in registered:
            abstract.ABCMeta.register(target, other)


def member(enumeration, kind, arguments):
    """A member of an enumeration, before its name and value."""
    return kind.__new__(enumeration, *arguments)


def fill_member(target, state):
    target.__dict__.update(state)


def type_variable(kind, name, constraints, options):
    import typing

    return getattr(typing, kind)(name, *constraints, **options)


# --- Arrays -------------------------------------------------------------------------------------------------


def array(dtype, shape, order, writeable):
    """An array whose bytes are the next blob."""
    import numpy

    made = numpy.empty(shape, dtype, order)
    next_blob(memoryview(_bytes(numpy, made, order)))
    return _settle(made, writeable)


def small_array(dtype, shape, order, writeable, data):
    import numpy

    made = numpy.empty(shape, dtype, order)
    if made.nbytes:
        _bytes(numpy, made, order)[:] = numpy.frombuffer(data, numpy.uint8)
    return _settle(made, writeable)


def view(base, dtype, shape, strides, offset, writeable):
    """An array that shares the memory of another one, or of bytes."""
    import numpy

    if dtype.hasobject:
        flat = flatten(base)
        made = numpy.lib.stride_tricks.as_strided(flat[offset // dtype.itemsize:], shape, strides, writeable=True)
    else:
        room = flatten(base) if isinstance(base, numpy.ndarray) else base
        made = numpy.ndarray(shape, dtype, room, offset, strides)
    return _settle(made, writeable)


def flatten(base):
    """All elements of an array in the order of memory, without a copy; ValueError if there are gaps."""
    axes = sorted(range(base.ndim), key=lambda axis: -base.strides[axis])
    ordered = base.transpose(axes)
    if not ordered.flags.c_contiguous:
        raise ValueError("the array has gaps")
    return ordered.reshape(-1)


def _bytes(numpy, made, order):
    return (made if order == "C" else made.T).reshape(-1).view(numpy.uint8)


def _settle(made, writeable):
    if made.flags.writeable != writeable:
        made.flags.writeable = writeable
    return made
