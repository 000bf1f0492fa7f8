"""Threads with nothing to do make way for a fork, and come again when they are needed.

A thread cannot be forked, so each one that is left is in the way of a checkpoint.
OpenBLAS ends its own when a fork comes; here others are asked to that can be asked.
"""

import os
import sys

JOIN_S_MAX = 0.2  # for a thread that waits for nothing but its end
OMP_PAUSE_SOFT = 1

_pools = []  # functions that end the threads of an OpenMP library
_modules = 0  # so many modules were loaded when those were looked for


def let_rest():
    """Ends what can be ended without harm; whatever is left has work to do, or an owner that counts on it."""
    if len(os.listdir("/proc/self/task")) < 2:
        return
    threading = sys.modules.get("threading")
    for thread in list(threading._active.values()) if threading is not None else ():
        # Of tqdm; every bar that begins looks whether there is one.
        if type(thread).__module__ == "tqdm._monitor":
            thread.was_killed.set()
            thread.join(JOIN_S_MAX)
    loop = sys.modules.get("cob.session_loop")
    if loop is not None:
        loop.let_threads_rest()
    for pause in _find_pools():
        pause(OMP_PAUSE_SOFT)


def _find_pools():
    """GNU's OpenMP, of which scikit-learn, torch and others bring a copy each; forked with threads it would hang."""
    global _modules
    if _modules != len(sys.modules):
        _pools[:] = map(_pauser, sorted(_libraries()))
        _modules = len(sys.modules)
    return [pause for pause in _pools if pause is not None]


def _libraries():
    with open("/proc/self/maps", "rb") as maps:
        return {line.split(None, 5)[5].strip() for line in maps if b"/libgomp" in line}


def _pauser(path):
    try:
        import ctypes

        return ctypes.CDLL(os.fsdecode(path), os.RTLD_NOLOAD | os.RTLD_NOW).omp_pause_resource_all
    except (ImportError, OSError, AttributeError):
        return None  # older than OpenMP 5
