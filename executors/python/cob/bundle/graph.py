"""Which variables share values.

Two variables belong together if one can change what the other shows: if an object
that can change is reached from both. What is saved by its name (modules, importable
classes and functions) and what never changes connects nothing.
"""

import gc
import sys
import types

from cob.bundle import arrays, byvalue

OBJECTS_MAX = 20_000_000  # that are remembered; beyond them all that is left is taken for connected
SMALL_OBJECTS = 1000  # plain variables with fewer share one blob

ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented)))
PLAIN = frozenset((list, dict, tuple, set, frozenset, bytearray))
# Held, they hold what runs: they cannot be saved, and what they reach is not theirs to connect.
ENDS = (
    types.FrameType, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.TracebackType,
    types.CodeType, types.ModuleType,
)
SMALL_BYTES = 1 << 16


class Group:
    """Variables that are saved together."""

    def __init__(self, names, plain=False, live=False):
        self.names = names
        self.plain = plain  # nothing but builtin containers and atoms, and little of it
        self.live = live  # it reaches the dictionary of the variables itself


class Walk:
    """From every variable through everything that it holds."""

    def __init__(self, namespace, known):
        self.namespace = namespace
        self.known = known  # id of what is saved by its name, whatever it holds
        self.owner = {}  # id of an object → number of the variable from which it was reached first
        self.reached = {}  # id of an array or of memory → how often it was reached
        self.parents = []
        self.plain = []
        self.live = []
        self._kept = []  # temporary objects must not give their ids away
        self._by_value = {}
        self._full = None
        # Every function holds the builtins.
        self._of_modules = {id(vars(module)) for module in list(sys.modules.values()) if type(module) is types.ModuleType}
        self._of_modules.discard(id(namespace))

    def groups(self, names):
        for name in names:
            self._visit(self.namespace[name])
        groups = {}
        for number, name in enumerate(names):
            root = self._find(number)
            group = groups.setdefault(root, Group([], True))
            group.names.append(name)
            group.plain = group.plain and self.plain[number]
            group.live = group.live or self.live[number]
        return list(groups.values())

    def _find(self, number):
        parents = self.parents
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    def _join(self, one, other):
        one, other = self._find(one), self._find(other)
        if one != other:
            self.parents[max(one, other)] = min(one, other)

    def _visit(self, value):
        number = len(self.parents)
        self.parents.append(number)
        self.plain.append(True)
        self.live.append(False)
        if self._full is not None:
            self.plain[number] = False
            self._join(number, self._full)
            return
        before, stack, weight = len(self.owner), [value], 0
        while stack:
            one = stack.pop()
            kind = type(one)
            if kind in ATOMS:
                weight += len(one) if kind is str or kind is bytes else 0
                continue
            key = id(one)
            if kind not in PLAIN:
                self.plain[number] = False
                if key in self.known or self._is_by_name(kind, one):
                    continue
                if kind in arrays.MEMORY or arrays.is_array(kind):
                    self.reached[key] = self.reached.get(key, 0) + 1
            elif key == id(self.namespace):
                self.live[number] = True
                self.plain[number] = False
                continue
            elif key in self._of_modules:
                self.plain[number] = False
                continue
            elif kind is bytearray:
                weight += len(one)
                self.reached[key] = self.reached.get(key, 0) + 1
            first = self.owner.get(key)
            if first is not None:
                if first != number:
                    self._join(first, number)
                continue
            parts = self._parts(kind, one)
            if (kind is tuple or kind is frozenset) and ATOMS.issuperset(map(type, parts)):
                continue  # it cannot change, and all of its kind may be the same object
            self.owner[key] = number
            if not ATOMS.issuperset(map(type, parts)):
                stack.extend(parts)
            else:
                weight += len(parts)
            if len(self.owner) > OBJECTS_MAX:
                self._full = number
                break
        if len(self.owner) - before > SMALL_OBJECTS or weight > SMALL_BYTES:
            self.plain[number] = False

    def _is_by_name(self, kind, one):
        """Whether it is saved as a reference, or never changes."""
        if issubclass(kind, type):
            return not byvalue.is_by_value(one)
        if kind is types.FunctionType:
            return not byvalue.is_by_value(one)
        if kind is types.BuiltinFunctionType:
            return one.__self__ is None or type(one.__self__) is types.ModuleType
        return kind in byvalue.CONSTANT or byvalue.is_constant(kind)

    def _parts(self, kind, one):
        """What it holds. The class belongs to it if it is saved with it."""
        if kind in PLAIN:
            return gc.get_referents(one)
        if issubclass(kind, ENDS):
            return []
        if arrays.is_array(kind):
            parts = arrays.parts(one)
            self._kept.append(parts)
        elif kind.__module__ == "weakref" and hasattr(one, "_pending_removals"):
            parts = list(one.items() if hasattr(one, "items") else one)
            self._kept.append(parts)
        else:
            parts = gc.get_referents(one)
            if kind is types.FunctionType and one.__globals__ is not self.namespace:
                if byvalue.surroundings(one, self.namespace) is not one.__globals__:
                    parts = [part for part in parts if part is not one.__globals__]
            elif kind is types.FunctionType:
                parts = [part for part in parts if part is not self.namespace]
        by_value = self._by_value.get(kind)
        if by_value is None:
            by_value = self._by_value[kind] = byvalue.is_by_value(kind)
        if by_value:
            parts.append(kind)
        return parts


def groups(namespace, names, known):
    """The variables in groups, and the walk that found them."""
    walk = Walk(namespace, known)
    found = walk.groups(names)
    small = Group([], True)
    rest = []
    for group in found:
        (small.names.extend(group.names) if group.plain else rest.append(group))
    return ([small] if small.names else []) + rest, walk
