"""Random sessions: the same seed gives the same session, in whichever interpreter.

So a session that was loaded is compared with one that was built anew: the two must be the same graph, object by
object, and what cannot be saved must be exactly what is missing.
"""
import random
import sys
import threading
import types

CLASSES = """
import dataclasses, enum, functools

class Plain:
    shared = []
    def __init__(self, value): self.value = value
    def same(self): return __class__
    @property
    def twice(self): return [self.value, self.value]

class Slotted:
    __slots__ = ("value", "__hidden")
    def __init__(self, value): self.value, self.__hidden = value, [value]

class Child(Plain):
    def __init__(self, value):
        super().__init__(value)
        self.more = {"value": value}

@dataclasses.dataclass
class Data:
    value: object
    rest: list = dataclasses.field(default_factory=list)

class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

def closure(value):
    count = 0
    def up(step=1, *, by=value):
        nonlocal count
        count += step
        return count, value
    def get():
        return count
    return up, get

def plain(value=1):
    return value

def generator(value):
    yield value
"""


class Tainted:
    """Names of objects that cannot be saved."""

    TYPES = (types.GeneratorType, type(threading.Lock()))


def build(namespace, seed, arrays):
    """Fills the namespace with classes and with variables v0, v1, …"""
    exec(compile(CLASSES, "<classes>", "exec", dont_inherit=True), namespace)
    choose = random.Random(seed)
    values = [[], {}, 1, "text"]
    makers = [_list, _dict, _tuple, _set, _instance, _slotted, _data, _function, _member, _bytes, _grow, _grow, _method]
    if arrays:
        makers += [_array, _view, _view, _objects, _frame]
    if seed % 2:
        makers += [_lock, _generator]
    for _ in range(choose.randrange(5, 40)):
        value = choose.choice(makers)(namespace, choose, values)
        if value is not None:
            values.append(value)
    for number in range(choose.randrange(1, 15)):
        namespace[f"v{number}"] = choose.choice(values)
    if choose.random() < 0.3:
        namespace["Plain"].shared.append(choose.choice(values))


def _list(namespace, choose, values):
    return [choose.choice(values) for _ in range(choose.randrange(4))]


def _dict(namespace, choose, values):
    return {choose.choice(("a", 2, (3,), b"4")): choose.choice(values) for _ in range(choose.randrange(4))}


def _tuple(namespace, choose, values):
    return tuple(_list(namespace, choose, values))


def _set(namespace, choose, values):
    return {choose.randrange(9), choose.choice(list(namespace["Colour"]))}


def _instance(namespace, choose, values):
    return namespace[choose.choice(("Plain", "Child"))](choose.choice(values))


def _slotted(namespace, choose, values):
    return namespace["Slotted"](choose.choice(values))


def _data(namespace, choose, values):
    return namespace["Data"](choose.choice(values), [choose.choice(values)])


def _function(namespace, choose, values):
    if choose.random() < 0.3:
        return namespace["plain"]
    up, get = namespace["closure"](choose.choice(values))
    up()
    values.append(get)
    return up


def _member(namespace, choose, values):
    return choose.choice(list(namespace["Colour"]) + list(namespace["Level"]))


def _method(namespace, choose, values):
    return namespace["Child"](choose.choice(values)).same


def _bytes(namespace, choose, values):
    return bytearray(choose.randrange(100))


def _grow(namespace, choose, values):
    """Adds to what is there: cycles come of it."""
    target = choose.choice(values)
    if type(target) is list:
        target.append(choose.choice(values))
    elif type(target) is dict:
        target["grown"] = choose.choice(values)
    elif type(target) is namespace["Plain"]:
        target.grown = choose.choice(values)


def _lock(namespace, choose, values):
    return threading.Lock() if choose.random() < 0.3 else None


def _generator(namespace, choose, values):
    return namespace["generator"](choose.choice(values)) if choose.random() < 0.3 else None


def _array(namespace, choose, values):
    import numpy

    size = choose.choice((0, 3, 100, 20_000))
    made = numpy.arange(float(size)) if choose.random() < 0.5 else numpy.ones((size, 4), "i4", choose.choice("CF"))
    if choose.random() < 0.2:
        made.flags.writeable = False
    return made


def _view(namespace, choose, values):
    import numpy

    arrays = [value for value in values if type(value) is numpy.ndarray]
    if not arrays:
        return _array(namespace, choose, values)
    array = choose.choice(arrays)
    return choose.choice((array[1:], array[::-1], array[::2], array.T, array[:]))


def _objects(namespace, choose, values):
    import numpy

    made = numpy.empty(3, object)
    for index in range(3):
        made[index] = choose.choice(values)
    return made


def _frame(namespace, choose, values):
    import pandas

    return pandas.DataFrame({"a": range(choose.choice((0, 5, 30_000))), "b": "text"})


# --- Comparing ----------------------------------------------------------------------------------------------


class Differ(AssertionError):
    pass


class Comparison:
    """Whether two graphs are one: each object of the one stands for one of the other, wherever it is reached."""

    def __init__(self, there, here):
        self.there, self.here = there, here
        self.of_there, self.of_here, self.kept = {}, {}, []
        self.arrays = []

    def run(self, names):
        stack = [(self.there[name], self.here[name], name) for name in names]
        while stack:
            there, here, way = stack.pop()
            if type(there).__name__ != type(here).__name__:
                raise Differ(f"{way}: {type(there)} and {type(here)}")
            if type(there) in (int, str, float, bytes, bool, type(None)):
                if there != here:
                    raise Differ(f"{way}: {there!r} and {here!r}")
                continue
            if type(there) in (tuple, frozenset, types.MethodType, types.CodeType):
                pass  # they never change: which one it is makes no difference
            elif (known := self.of_there.get(id(there))) is not None or id(here) in self.of_here:
                if known is not here or self.of_here.get(id(here)) is not there:
                    raise Differ(f"{way}: not the same object any more")
                continue
            self.of_there[id(there)], self.of_here[id(here)] = here, there
            self.kept.append((there, here))
            stack.extend(self._parts(there, here, way))
        self._memory()

    def _parts(self, there, here, way):
        kind = type(there)
        if kind in (list, tuple):
            _equal(len(there), len(here), way)
            return [(one, other, f"{way}[{index}]") for index, (one, other) in enumerate(zip(there, here))]
        if kind is dict:
            _equal([_key(key) for key in there], [_key(key) for key in here], way)
            return [(one, other, f"{way}[{key!r}]") for (key, one), other in zip(there.items(), here.values())]
        if kind is set:
            _equal(sorted(map(_key, there)), sorted(map(_key, here)), way)
            return []
        if kind is bytearray:
            return _equal(there, here, way)
        if kind is types.FunctionType:
            if there.__module__ != "__main__":
                return _equal(there, here, way)
            _equal(there.__code__.co_code, here.__code__.co_code, way)
            _equal((there.__name__, there.__qualname__, there.__module__), (here.__name__, here.__qualname__, "__main__"), way)
            if here.__globals__ is not (self.here if there.__globals__ is self.there else there.__globals__):
                raise Differ(f"{way}: its variables are not the session's")
            parts = [(there.__defaults__, here.__defaults__, way + ".__defaults__"),
                     (there.__kwdefaults__, here.__kwdefaults__, way + ".__kwdefaults__")]
            for one, other in zip(there.__closure__ or (), here.__closure__ or ()):
                parts.append((one, other, way + ".__closure__"))
            return parts
        if kind is types.CellType:
            return [(there.cell_contents, here.cell_contents, way + ".cell")]
        if kind is types.MethodType:
            return [(there.__self__, here.__self__, way + ".self"), (there.__func__, here.__func__, way + ".func")]
        if kind is type or isinstance(there, type):
            return self._of_class(there, here, way)
        if kind.__module__.partition(".")[0] in ("numpy", "pandas"):
            return self._of_library(there, here, way)
        return self._of_instance(there, here, way)

    def _of_class(self, there, here, way):
        if there.__module__ == "builtins":
            return _equal(there, here, way)
        _equal((there.__qualname__, list(vars(there))), (here.__qualname__, [name for name in vars(there) if name in vars(here)]), way)
        return [(one, vars(here)[name], f"{way}.{name}") for name, one in vars(there).items() if type(one) in (list, types.FunctionType)]

    def _of_instance(self, there, here, way):
        parts = [(type(there), type(here), way + ".class")]
        for name in (*getattr(there, "__dict__", ()), "value", "_Slotted__hidden"):
            if hasattr(there, name) and name != "__objclass__":
                parts.append((getattr(there, name), getattr(here, name), f"{way}.{name}"))
        return parts

    def _of_library(self, there, here, way):
        import numpy

        if type(there) is not numpy.ndarray:
            return _equal(bool(there.equals(here)), True, way)
        _equal((there.dtype, there.shape, there.flags.writeable), (here.dtype, here.shape, here.flags.writeable), way)
        if there.dtype == object:
            self.arrays.append((there, here, way))
            return [(one, other, way + "[…]") for one, other in zip(there, here)]
        self.arrays.append((there, here, way))
        return _equal(there.tolist(), here.tolist(), way)

    def _memory(self):
        if not self.arrays:
            return
        import numpy

        for number, (there, here, way) in enumerate(self.arrays):
            for one, other, other_way in self.arrays[:number]:
                shared = numpy.may_share_memory(there, one), numpy.may_share_memory(here, other)
                _equal(*shared, f"{way} and {other_way}")


def _key(key):
    return repr(key)


def _equal(one, other, way):
    if one != other:
        raise Differ(f"{way}: {one!r} and {other!r}")
    return []


def tainted(namespace):
    """Names of variables that hold something that cannot be saved."""
    import gc

    found = set()
    for name, value in namespace.items():
        stack, seen = [value], set()
        while stack:
            one = stack.pop()
            if id(one) in seen or one is namespace or isinstance(one, types.ModuleType):
                continue
            if isinstance(one, type) and one.__module__ != namespace["Plain"].__module__:
                continue
            seen.add(id(one))
            if isinstance(one, Tainted.TYPES):
                found.add(name)
                break
            if isinstance(one, type) or not isinstance(one, types.FunctionType):
                stack.extend(gc.get_referents(one))
                if type(one).__name__ == "ndarray" and one.dtype == object:
                    stack.extend(one.tolist() if one.ndim == 1 else [])
                if type(one).__name__ == "ndarray" and one.base is not None:
                    stack.append(one.base)
            else:
                stack.extend(filter(None, (one.__defaults__, one.__kwdefaults__, one.__closure__)))
    return {name for name in found if not name.startswith("__")}


def check(outcome, seed, arrays):
    """In the interpreter that has loaded: is it the session of this seed, but for what had to be missing?"""
    here = sys.modules["__main__"].__dict__
    there = {"__name__": "__main__"}
    build(there, seed, arrays)
    lost = tainted(there)
    _equal(sorted(entry["name"] for entry in outcome["missing"]), sorted(lost), "missing")
    names = [name for name in there if name not in lost and not name.startswith("__")]
    modules = [name for name in names if isinstance(there[name], types.ModuleType)]
    for name in modules:
        _equal(there[name], here[name], name)
    Comparison(there, here).run([name for name in names if name not in modules])
