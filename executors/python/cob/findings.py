"""What a checkpoint would not hold, or not as it was.

A list of (kind, text, does it block a checkpoint).  Looks at descriptors, at types
and at what the interpreter itself knows, and runs no code of the user's: no
representation, no property, no metaclass.  Bounded by the names and descriptors
that it looks at, never by what the session holds.
"""

import _io
import os
import sys

import _thread
from _stat import S_ISREG
from cob import engine
from cob.namespace import type_name

NAMES_MAX, DESCRIPTORS_MAX = 2000, 1000
NAMED_MAX, NAME_CHARACTERS_MAX = 4, 80
PRIVATE = range(64, 80)  # where the descriptors of the worker itself begin; see executors/worker/src/descriptors.rs
STANDARD = frozenset((0, 1, 2, 6))
WRITES = 3  # O_WRONLY | O_RDWR
ELSEWHERE = ("/dev/", "/proc/", "/memfd:")

CONNECTIONS = frozenset(
    "sqlite3.Connection psycopg2.extensions.connection psycopg.Connection psycopg.AsyncConnection "
    "pymysql.connections.Connection MySQLdb.connections.Connection mysql.connector.connection.MySQLConnection "
    "mysql.connector.connection_cext.CMySQLConnection oracledb.connection.Connection pyodbc.Connection "
    "asyncpg.connection.Connection duckdb.duckdb.DuckDBPyConnection _duckdb.DuckDBPyConnection "
    "sqlalchemy.engine.base.Engine sqlalchemy.engine.base.Connection sqlalchemy.orm.session.Session "
    "pymongo.mongo_client.MongoClient pymongo.synchronous.mongo_client.MongoClient redis.client.Redis "
    "requests.sessions.Session httpx.Client httpx.AsyncClient aiohttp.client.ClientSession "
    "paramiko.client.SSHClient h5py._hl.files.File".split()
)

_mro = type.__dict__["__mro__"].__get__


def look():
    """Everything that is in the way."""
    owners, children, connections = _variables()
    return [
        *_threads(),
        *_children(children),
        *_descriptors(owners),
        *_gpu(),
        *_several("connection", connections, "is shared with every copy of the session",
                  "are shared with every copy of the session"),
        *_tasks(),
        *_comms(),
    ]


def _several(kind, names, one, many, blocks=False):
    """One finding for all of a kind; names the first few."""
    if not names:
        return
    shown = ", ".join(name[:2 * NAME_CHARACTERS_MAX] for name in names[:NAMED_MAX])
    if len(names) > NAMED_MAX:
        shown += f" and {len(names) - NAMED_MAX} more"
    yield kind, f"{shown} {one if len(names) == 1 else many}", blocks


# -- threads and processes -------------------------------------------------------------------


def _threads():
    """Those that Python started; what others there are is counted from outside."""
    threading = sys.modules.get("threading")
    if threading is None or not _thread._count():
        return ()
    running = sys._current_frames()
    names, known = [], {_thread.get_ident()}
    for ident, thread in list(threading._active.items()):
        known.add(ident)
        # Of a thread that Python did not start the object stays when the thread is gone.
        if thread is threading._main_thread or type(thread) is threading._DummyThread and ident not in running:
            continue
        name = _attributes(threading.Thread, thread).get("_name")
        names.append(f"the thread {name}" if type(name) is str else "a thread")
    names += ["a thread without a name"] * len(running.keys() - known)
    return _several("thread", names, "would be missing in a checkpoint", "would be missing in a checkpoint", True)


def _children(variables):
    """Those that Python started and that still run; ``variables``: pid -> name."""
    names = [f"the process {pid} ({name})" for pid, name in variables.items() if _runs(pid)]
    module = sys.modules.get("multiprocessing.process")
    for process in list(getattr(module, "_children", ())):
        values = _attributes(module.BaseProcess, process)
        pid = getattr(values.get("_popen"), "pid", None)
        if type(pid) is int and pid not in variables and _runs(pid):
            names.append(f"the process {pid} ({values.get('_name')!s})")
    return _several("child", names, "would not belong to a checkpoint", "would not belong to a checkpoint", True)


def _runs(pid):
    """Whether a child has not ended; whoever waits for it still gets its status."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except OSError:
        return False


# -- variables -------------------------------------------------------------------------------


def _attributes(kind, value):
    """The attributes that an instance of a Python class has itself."""
    return kind.__dict__["__dict__"].__get__(value)


def _variables():
    """Descriptor -> variable, process id -> variable, and variables that are connections."""
    owners, children, connections = {}, {}, []
    subprocess = sys.modules.get("subprocess")
    popen = getattr(subprocess, "Popen", None)
    socket = getattr(sys.modules.get("_socket"), "socket", None)
    looks = {id(kind): "file" for kind in _FILES}
    looks.update({id(popen): "child", id(socket): "socket"})
    looks.pop(id(None), None)
    for index, (name, value) in enumerate(reversed(list(engine.namespace.items()))):
        if index == NAMES_MAX:
            break
        kind = type(value)
        if type(name) is not str or kind is type or kind is type(look) or kind is type(sys):
            continue
        for base in _mro(kind):
            what = looks.get(id(base))
            if what is not None:
                break
        else:
            if type_name(kind) in CONNECTIONS:
                connections.append(f"the connection {name}")
            continue
        try:
            if what == "file":
                owners[_file(value, kind)] = name
            elif what == "socket":
                owners[socket.fileno(value)] = name
            else:
                values = _attributes(popen, value)
                if values.get("returncode") is None and type(values.get("pid")) is int:
                    children[values["pid"]] = name
        except (ValueError, AttributeError, TypeError, OSError):
            pass  # closed, or never opened
    owners.pop(-1, None)
    return owners, children, connections


_BUFFERS = {_io.BufferedWriter: _io.BufferedWriter.raw, _io.BufferedRandom: _io.BufferedRandom.raw,
            _io.BufferedReader: _io.BufferedReader.raw}
_FILES = (_io.TextIOWrapper, _io.FileIO, *_BUFFERS)


def _file(value, kind):
    """The descriptor of a file. What is written to a regular one is flushed: else every copy would write it once more."""
    raw, layer = value, kind
    if layer is _io.TextIOWrapper:
        raw = _io.TextIOWrapper.buffer.__get__(raw)
        layer = type(raw)
    get = _BUFFERS.get(layer) if any(layer is known for known in _BUFFERS) else None
    if get is not None:
        raw = get.__get__(raw)
    if type(raw) is not _io.FileIO:
        return -1
    number = raw.fileno()
    if kind is not layer or get is not None:
        if raw.writable() and S_ISREG(os.fstat(number).st_mode):
            value.flush()
    return number


# -- descriptors -----------------------------------------------------------------------------


def _descriptors(owners):
    """Sockets and files that are written, with the variable that holds them; the native half tells what else is open."""
    sockets, files = [], []
    ours = _of_loop()
    for number in map(int, os.listdir("/proc/self/fd")[:DESCRIPTORS_MAX]):
        if number in STANDARD or number in PRIVATE or number in ours:
            continue
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the folder itself
        if target.startswith("socket:"):
            sockets.append(_called("a socket", owners.get(number)))
        elif target.startswith("/") and not target.startswith(ELSEWHERE) and _is_written(number):
            files.append(_called(target, owners.get(number)))
    yield from _several("socket", sockets, "stays open and is shared with every copy of the session",
                        "stay open and are shared with every copy of the session")
    yield from _several("file", list(dict.fromkeys(files)), "is open for writing: what is written is not undone",
                        "are open for writing: what is written is not undone")


def _is_written(number):
    try:
        info = os.open(f"/proc/self/fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for line in os.read(info, 512).split(b"\n"):
                if line.startswith(b"flags:"):
                    return bool(int(line[6:], 8) & WRITES)
        finally:
            os.close(info)
    except (OSError, ValueError):
        pass
    return False


def _called(what, variable):
    if len(what) > NAME_CHARACTERS_MAX:
        what = "…" + what[-NAME_CHARACTERS_MAX:]
    return what if variable is None else f"{variable[:NAME_CHARACTERS_MAX]} ({what})"


# -- libraries -------------------------------------------------------------------------------


def _gpu():
    """A library that has begun to use one; of others the open devices tell it."""
    if getattr(sys.modules.get("torch.cuda"), "__dict__", {}).get("_initialized") is True:
        yield "cuda", "torch uses a GPU, and what is on it cannot be copied", True


def _of_loop():
    """Descriptors of the session's own event loop."""
    module = sys.modules.get("cob.session_loop")
    return module.descriptors() if module is not None else ()


def _tasks():
    module = sys.modules.get("cob.session_loop")
    count = module.count_tasks() if module is not None else 0
    if count:
        tasks = "an asyncio task goes" if count == 1 else f"{count} asyncio tasks go"
        yield "task", f"{tasks} on in every copy of the session", False


def _comms():
    module = sys.modules.get("cob.comms")
    count = module.count() if module is not None else 0
    if count:
        what = "a widget or other comm is" if count == 1 else f"{count} widgets or other comms are"
        yield "comm", f"{what} open, and the half in the front end is neither kept nor undone", False
