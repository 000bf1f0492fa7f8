"""Writes a session down: one component after the other, each whole or not at all."""

import gc
import io
import json
import pickle
import signal
import sys
import time
import types

from cob.bundle import blame, byvalue, graph, rebuild, surroundings
from cob.namespace import OURS, is_result, type_name

HELD_BYTES_MAX = 8 << 20  # a pickle that turns out not to work leaves no trace up to here
APART_BYTES_MIN = 1 << 16
SECONDS_MAX = 500  # for all; the host gives up later than that
DEPTH = 50_000  # of nested calls in C, with the stack it is given
STACK_BYTES = 96 << 20
CALLS = 500_000  # of Python's own that need no stack: nested values cost three each
OF_MODULES = frozenset((
    "__annotations__", "__builtins__", "__doc__", "__file__", "__loader__", "__name__", "__package__", "__spec__",
    "__builtin__", "__cached__", "__path__", "__warningregistry__", "__conditional_annotations__", "__annotate__",
))


class TookTooLong(BaseException):
    """Saving one component has used up its time."""


class HostGone(BaseException):
    """Nobody takes what is written."""


def save(writer, namespace):
    saving = Saving(writer, namespace)
    prepare()
    saving.run()


def prepare():
    """This process is not the session: what helps the work is set here for good."""
    import warnings

    gc.disable()
    warnings.simplefilter("ignore")
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        size = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (size, hard))
    except (ImportError, OSError, ValueError):
        return
    if size == STACK_BYTES:
        sys.setrecursionlimit(max(DEPTH, sys.getrecursionlimit()))


class Saving:
    """The state of a save."""

    def __init__(self, writer, namespace):
        self.writer, self.namespace = writer, namespace
        self.extra = surroundings.describe()  # first of all: saving runs code of the user's
        self.modules, self.files = set(), set()
        self.components, self.missing, self.sizes = [], [], []
        self.until = time.monotonic() + SECONDS_MAX
        self.known = surroundings.known()
        self.reached = {}

    def run(self):
        byvalue.learn()
        names = [name for name in self.namespace if is_users(name, self.namespace[name])]
        rest = []
        for name in names:
            value = self.namespace[name]
            if type(value) is types.ModuleType and byvalue.is_module_importable(value):
                self.modules.add(value.__name__)
                self.components.append(_component([name], "module", "reference", [], 0, value.__name__))
            else:
                rest.append(name)
        groups, walk = graph.groups(self.namespace, rest, self.known)
        self.reached = walk.reached
        for group in groups:
            self.save_group(group.names, group.live)
        outline = {
            "language": "python", "runtime": surroundings.runtime(self.modules), "components": self.components,
            "missing": self.missing, "extra": {**self.extra, "blobs": self.sizes, **surroundings.sources(self.files)},
        }
        self.writer.finish(json.dumps(outline))

    def save_group(self, names, live):
        """All of them; or those that can be saved, and why the others cannot."""
        failure = self.attempt(names, live)
        if failure is None:
            return
        if len(names) == 1:
            self.leave_out(names[0], failure)
            return
        good = []
        for name in names:
            failure = self.attempt([name], live, on_trial=True)
            if failure is None:
                good.append(name)
            else:
                self.leave_out(name, failure)
        if len(good) == len(names):  # none fails by itself: what fails is something that they do together
            for name in good:
                self.leave_out(name, self.attempt(good, live, on_trial=True) or failure or (None, None))
            return
        if good:
            self.save_group(good, live)

    def leave_out(self, name, failure):
        error, culprit = failure
        value = self.namespace[name]
        try:
            reason = blame.describe(value, culprit, error)
        except BaseException as broken:  # to look at a value may run code of its class
            reason = f"it cannot be saved: {blame.text_of(error)} ({type(broken).__name__})"
        self.missing.append({"name": name, "kind": type_name(type(value)), "reason": reason})

    def attempt(self, names, live, on_trial=False):
        """None if it is done, else the error and the object to blame."""
        values = [self.namespace[name] for name in names]
        failure = self.dump(names, values, _base(), on_trial) if not live else None
        if live or failure is not None and blame.is_too_deep(failure[0]):
            failure = self.dump(names, values, pickle._Pickler, on_trial)
        return failure

    def dump(self, names, values, base, on_trial):
        left = self.until - time.monotonic()
        if left <= 0:
            return TookTooLong("no time was left for it"), None
        blob = _Nothing() if on_trial else _Blob(self)
        pickler = _pickler_class(base)(blob, self)
        limit = sys.getrecursionlimit()
        try:
            if base is pickle._Pickler and sys.version_info >= (3, 12):
                sys.setrecursionlimit(CALLS)  # C has a limit of its own there
            with _Alarm(left / 2):
                pickler.dump(values)
        except HostGone:
            raise
        except BaseException as error:  # code of the user's runs in there: whatever it raises is an answer
            blob.give_up()
            return error, error.culprit if isinstance(error, blame.Unsavable) else pickler.last
        finally:
            sys.setrecursionlimit(limit)
        if not on_trial:
            self.write_out(names, values, blob, pickler)
        return None

    def write_out(self, names, values, blob, pickler):
        blobs = [blob.end()]
        for buffer in pickler.buffers:
            self.write(buffer)
            blobs.append(self.end_blob(buffer.nbytes, buffer.readonly))
        size = sum(self.sizes[number][0] for number in blobs)
        kind = type_name(type(values[0]))
        codec = "cloudpickle" if "cloudpickle" in type(pickler).__mro__[1].__module__ else "pickle"
        self.components.append(_component(names, kind, codec, blobs, size))

    def write(self, buffer):
        try:
            self.writer.write(buffer)
        except Exception as error:
            raise HostGone(error) from error

    def end_blob(self, size, readonly=False):
        try:
            number = self.writer.end_blob()
        except Exception as error:
            raise HostGone(error) from error
        self.sizes.append([size, int(readonly)])
        return number


def is_users(name, value):
    if type(name) is not str or name in OURS or name in OF_MODULES or is_result(name):
        return False
    shell = getattr(sys.modules.get("cob.engine"), "shell", None)
    return shell is None or shell.user_ns_hidden.get(name, shell) is not value


def _component(names, kind, codec, blobs, size, reference=None):
    component = {"names": names, "kind": kind, "codec": codec, "bytes": size, "blobs": blobs}
    return component if reference is None else {**component, "reference": reference}


class _Blob:
    """The pickle of a component: held back until it is whole, unless it is large."""

    def __init__(self, saving):
        self.saving, self.held, self.size, self.under_way = saving, [], 0, False

    def write(self, data):
        view = memoryview(data)
        size = view.nbytes
        self.size += size
        if self.under_way:
            self.saving.write(data)
        else:
            self.held.append(data if type(data) is bytes else bytes(view))
            if self.size > HELD_BYTES_MAX:
                self.flush()
        return size

    def flush(self):
        self.under_way = True
        for data in self.held:
            self.saving.write(data)
        self.held.clear()

    def end(self):
        self.flush()
        return self.saving.end_blob(self.size)

    def give_up(self):
        """What went out already stands in the stream, and in no component."""
        if self.under_way:
            self.saving.end_blob(self.size)


class _Nothing:
    """Takes a pickle on trial."""

    def write(self, data):
        return memoryview(data).nbytes

    def give_up(self):
        pass


class _Alarm:
    """Ends what takes too long, by an exception in the middle of it."""

    def __init__(self, seconds):
        self.seconds, self.is_on = max(seconds, 0.001), False

    def __enter__(self):
        self.is_on = True
        signal.signal(signal.SIGALRM, self.ring)
        # Again and again: code that catches everything is asked once more.
        signal.setitimer(signal.ITIMER_REAL, self.seconds, 0.1)

    def ring(self, *_):
        if self.is_on:
            raise TookTooLong(f"it took longer than {self.seconds:.0f} s")

    def __exit__(self, *_):
        self.is_on = False
        signal.setitimer(signal.ITIMER_REAL, 0)


_classes = {}


def _base():
    """cloudpickle's pickler if there is one: it knows some more kinds of values."""
    try:
        from cloudpickle import Pickler

        return Pickler if issubclass(Pickler, pickle.Pickler) else pickle.Pickler
    except BaseException:  # a module of that name may be anybody's
        return pickle.Pickler


def _pickler_class(base):
    found = _classes.get(base)
    if found is None:
        found = _classes[base] = _make_class(base)
    return found


def _make_class(base):
    """One pickler per component, so that what is shared inside of it stays shared."""
    inherited = getattr(base, "reducer_override", None)

    class Pickler(base):
        def __init__(self, file, saving):
            super().__init__(file, 5, buffer_callback=self.take)
            self.saving = saving
            self.buffers = []
            self.last = None  # the object that is being taken apart: who is to blame if that fails
            self.reducers = dict(byvalue.EXACT)
            if base is pickle._Pickler:
                # Called as a method it would need C's stack.
                self.save_reduce = lambda *parts, **options: base.save_reduce(self, *parts, **options)

        def take(self, buffer):
            """False: this buffer goes into a blob of its own."""
            with buffer.raw() as view:
                if view.nbytes < APART_BYTES_MIN:
                    return True
            self.buffers.append(buffer.raw())
            return False

        def apart(self, view):
            """Bytes that are not in the pickle; whoever is loaded from it asks for the next blob."""
            self.buffers.append(view)

        def reducer_override(self, value):
            self.last = value
            kind = type(value)
            known = self.saving.known.get(id(value))
            if known is not None:
                return known
            try:
                reduce = self.reducers[kind]
            except KeyError:
                reduce = self.reducers[kind] = byvalue.reducer_of(kind)
                module = byvalue._module(kind)
                if type(module) is str:
                    self.saving.modules.add(module)
            reduced = NotImplemented if reduce is None else reduce(self, value)
            if reduced is NotImplemented and inherited is not None:
                return inherited(self, value)
            return reduced

    return Pickler
