"""Who is to blame when something cannot be saved: which object, where it sits, and in which words to say so."""

import gc
import sys
import types
from collections import deque

from cob.namespace import type_name

OBJECTS_MAX = 1_000_000  # that are looked at for the way to one of them
TEXT_MAX = 200
WAY_MAX = 100  # characters

# What would be a lie if it came back, in words for people; most special first.
_WORDS = (
    ("types", "GeneratorType", "a generator"), ("types", "CoroutineType", "a coroutine"),
    ("types", "AsyncGeneratorType", "an asynchronous generator"), ("types", "FrameType", "a frame of running code"),
    ("types", "TracebackType", "a traceback"), ("_thread", "LockType", "a thread lock"),
    ("_thread", "lock", "a thread lock"), ("_thread", "RLock", "a thread lock"), ("_thread", "_local", "thread-local data"),
    ("threading", "Thread", "a thread"), ("threading", "Condition", "a thread lock"), ("threading", "_RLock", "a thread lock"),
    ("threading", "Event", "an event of threads"), ("threading", "Semaphore", "a semaphore of threads"),
    ("threading", "Barrier", "a barrier of threads"), ("_socket", "socket", "a socket"),
    ("subprocess", "Popen", "a running program"), ("multiprocessing.process", "BaseProcess", "a process"),
    ("multiprocessing.shared_memory", "SharedMemory", "shared memory"),
    ("multiprocessing.connection", "_ConnectionBase", "a connection to a process"),
    ("multiprocessing.pool", "Pool", "a pool of processes"), ("concurrent.futures", "Executor", "a pool of workers"),
    ("concurrent.futures", "Future", "a result that is still awaited"),
    ("asyncio", "Future", "a task or future of asyncio"), ("asyncio", "AbstractEventLoop", "an event loop"),
    ("_contextvars", "ContextVar", "a context variable"), ("_contextvars", "Token", "a token of a context variable"),
    ("_contextvars", "Context", "a context"), ("_weakref", "ReferenceType", "a weak reference"),
    ("_weakref", "ProxyType", "a weak reference"), ("_weakref", "CallableProxyType", "a weak reference"),
    ("mmap", "mmap", "mapped memory"), ("sqlite3", "Connection", "a connection to a database"),
    ("sqlite3", "Cursor", "a cursor of a database"), ("select", "epoll", "a selector of files"),
    ("select", "poll", "a selector of files"), ("_io", "_IOBase", "an open file"), ("tempfile", "_TemporaryFileWrapper", "an open file"),
)


class Unsavable(Exception):
    """Raised where an object is met that must not be saved."""

    def __init__(self, culprit, words):
        super().__init__(f"{type(culprit).__name__}: {words}")
        self.culprit, self.words = culprit, words


def words_of(kind):
    """What an instance of this type is, if it cannot be saved."""
    for module, name, words in _WORDS:
        known = getattr(sys.modules.get(module), name, None)
        if isinstance(known, type) and issubclass(kind, known):
            return words
    return None


def describe(value, culprit, error):
    """A sentence: what in this variable cannot be saved, and why."""
    if is_too_deep(error):
        return "it is nested too deeply, or without end"
    subject = "it"
    if culprit is not None and culprit is not value:
        way = _way(value, culprit)
        kind = "element" if way is not None and way.startswith("[") else "attribute"
        subject = f"its {kind} {way}" if way else f"something in it, of the type {type_name(type(culprit))},"
    if isinstance(error, Unsavable):
        return f"{subject} is {error.words}"
    return f"{subject} cannot be saved: {text_of(error)}"


def is_too_deep(error):
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)


def text_of(error):
    """Name and text of an exception; the text is user code and may fail."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # whatever it raises, it is the text of an error that is told already
        text = ""
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"{name}: {text[:TEXT_MAX]}" if text else name


def _way(value, culprit):
    """How to get from one object to another, as it would be written; "" if it is the same, None if it is not found."""
    if value is culprit:
        return ""
    seen, queue = {id(value)}, deque([(value, "")])
    while queue and len(seen) < OBJECTS_MAX:
        one, way = queue.popleft()
        for part, step in _steps(one):
            if part is culprit:
                return way + step
            if id(part) in seen or isinstance(type(part), type) and type(part) in (str, int, float, bytes, bool):
                continue
            if isinstance(part, (types.ModuleType, types.FrameType)):
                continue
            seen.add(id(part))
            if len(way) < WAY_MAX:
                queue.append((part, way + step))
    return None


def _steps(one):
    """Each part of an object, and how it is reached."""
    kind = type(one)
    if issubclass(kind, dict):
        for key, part in dict.items(one):
            yield part, f"[{_short(key)}]"
            yield key, f"[{_short(key)}]"
    elif issubclass(kind, (list, tuple)):
        yield from ((part, f"[{index}]") for index, part in enumerate(kind.__iter__(one)))
    elif kind is types.FunctionType:
        for name, cell in zip(one.__code__.co_freevars, one.__closure__ or ()):
            yield from ((part, f".{name}") for part in gc.get_referents(cell))
        yield from ((part, ".__defaults__") for part in one.__defaults__ or ())
        yield from ((part, f".{name}") for name, part in (one.__kwdefaults__ or {}).items())
        yield from ((part, f".{name}") for name, part in one.__dict__.items())
        return
    elif isinstance(one, type):
        yield from ((part, f".{name}") for name, part in vars(one).items())
        return
    try:
        attributes = object.__getattribute__(one, "__dict__")
    except Exception:  # none, or one of its own making
        attributes = None
    if type(attributes) is dict:
        yield from ((part, f".{name}") for name, part in attributes.items())
    for part in gc.get_referents(one):
        if part is not attributes:
            yield part, _slot(kind, one, part)


def _slot(kind, one, part):
    if isinstance(part, type) and part is kind:
        return ".__class__"
    for base in kind.__mro__:
        for name, descriptor in vars(base).items():
            if type(descriptor) is types.MemberDescriptorType:
                try:
                    if descriptor.__get__(one) is part:
                        return f".{name}"
                except AttributeError:
                    continue
    return "[…]"


def _short(key):
    if type(key) in (str, bytes, int, float, bool, type(None)):
        text = repr(key)
        return text if len(text) <= 40 else text[:39] + "…"
    return f"a {type(key).__name__}"
