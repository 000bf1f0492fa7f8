"""Before a session is forked, and right after.

A zygote holds an interpreter in which everything is done that every session
needs and no session can tell apart: this package is loaded, modules are
imported. What would make two of its sessions alike (random numbers, secrets) is
made anew in each, and what makes them differ (environment, folder) comes later.
"""

import gc
import os
import sys

import _cob
import _signal

from cob import engine, profile

# Of this package, what first outputs, errors and checkpoints need; none of it does anything when it is imported.
PRELOADED = (
    "complete", "completeness", "display", "encoding", "errors", "expressions", "figures", "frames", "printers",
    "script", "syntax", "tree", "freezing",
)

REHEARSALS = 20  # after so many calls the interpreter has made up its mind about a function

_environment = None  # of this process before the imports
_given = None  # the variables that the session asked for last


def load():
    """Everything up to the imports. Until ``settle`` nothing is collected: it would only be looked at in vain."""
    global _environment
    gc.disable()
    engine.load()
    engine.arrive()
    for name in PRELOADED:
        __import__("cob." + name)
    _environment = dict(os.environb)


def import_module(name):
    """None, or why the module cannot be imported: whatever a module raises is its own affair."""
    try:
        __import__(name)
    except BaseException as error:
        from cob import errors

        return f"{errors.name(error)}: {errors.text(error)}"
    return None


def settle():
    """What exists now is never looked at by the collector again, so that its pages stay shared."""
    # A module that handles interrupts in its own way may do so in a session that imports it, and in no other.
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    for _ in range(REHEARSALS):
        _rehearse()
    gc.collect()
    gc.freeze()
    gc.enable()


def warm_up():
    """In a session that was just forked, before anything is asked of it."""
    differ()
    introduction = _rehearse()
    loop = sys.modules.get("cob.session_loop")
    if loop is not None:
        loop.enter()
        loop.leave()
    return introduction


def _rehearse():
    """Do what the start of a session and a cell do, and leave no trace.

    Calling a function writes to the pages of its objects, and of a page that a forked process writes to for the first
    time a copy is made. Done here, nobody waits for it. In the zygote itself it lets the interpreter specialise the
    code once for all.
    """
    replace_environment(dict(os.environb))
    engine.rehearse()
    profile.is_empty()
    return engine.arrive()


def differ():
    """From what this process was forked off, and from whatever else is. Python itself reseeds ``random``."""
    for step in (_reseed, _know_thread, _renew_secret):
        try:
            step()
        except Exception as error:  # the user may have changed the library
            _cob.log("warning", f"a forked session is not quite its own: {type(error).__name__}: {error}")


def _reseed():
    torch = sys.modules.get("torch")
    if hasattr(torch, "default_generator"):
        torch.default_generator.seed()
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        numbers.seed()


def _know_thread():
    threading = sys.modules.get("threading")
    if threading is not None and threading.main_thread().native_id != os.getpid():
        threading.main_thread()._set_native_id()  # up to 3.12 it is left as it was in the parent


def _renew_secret():
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.current_process().authkey = os.urandom(32)


def replace_environment(wanted):
    """The session's variables instead of the zygote's; ``wanted`` maps bytes to bytes.

    What modules changed when they were imported stays changed where the session asks for nothing else: in a process
    of its own they would have changed it as well.
    """
    global _given
    _given = dict(wanted)
    environment = os.environb
    now = dict(environment)
    if _environment is not None:
        for name in now.keys() | _environment.keys():
            if now.get(name) == _environment.get(name) or wanted.get(name) != _environment.get(name):
                continue
            if name in now:
                wanted[name] = now[name]
            else:
                wanted.pop(name, None)
    for name in now.keys() - wanted.keys():
        del environment[name]
    for name, value in wanted.items():
        if now.get(name) != value:
            environment[name] = value
    _follow(now, wanted)


def merge_environment(given):
    """The session's variables stay as the user left them, but for what is asked for otherwise than at its start."""
    global _given
    before = _given if _given is not None else _started_with()
    now = dict(os.environb)
    news = {name: value for name, value in given.items() if before.get(name) != value}
    for name, value in news.items():
        os.environb[name] = value
    _given = {**before, **given}
    _follow(now, {**now, **news})


def _started_with():
    with open("/proc/self/environ", "rb") as file:
        return dict(line.split(b"=", 1) for line in file.read().split(b"\0") if b"=" in line)


def _follow(now, wanted):
    """What looks at a variable only once has looked already."""
    if now.get(b"TZ") != wanted.get(b"TZ"):
        import time

        time.tzset()
    if now.get(b"TMPDIR") != wanted.get(b"TMPDIR") and "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None
    if now.get(b"MPLBACKEND") != wanted.get(b"MPLBACKEND") and "matplotlib" in sys.modules:
        from cob import figures

        figures.follow_environment(sys.modules["matplotlib"])
    if now.get(b"PYTHONASYNCIODEBUG") != wanted.get(b"PYTHONASYNCIODEBUG") and "cob.session_loop" in sys.modules:
        from cob import session_loop

        session_loop.follow_environment()
