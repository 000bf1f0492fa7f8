"""A session becomes a checkpoint, and goes on from one.

A checkpoint is a fork of the process that waits; the workers that come of it are
forks of that.  So everything is as it was, but for what must not be the same in
two processes: random numbers, secrets, and what wakes a process up.
"""

import gc
import os
import sys

import _cob
from cob import engine, findings, history, resting, zygote

LOOK_EVERY = 16  # freezes, after which garbage among frozen objects is looked for …
GROWTH_MIN = 1.25  # … if there are so many times as many objects as then

_freezes = 0
_settled = 0  # frozen objects when there was no garbage among them
_folder = None  # of the checkpoint, once this is one


def before_freeze():
    """What is in the way of a checkpoint, as (kind, text, does it block it); what is not is made ready for the fork."""
    resting.let_rest()
    found = findings.look()
    if not any(blocks for _, _, blocks in found):
        _look_away()
    return found


def frozen():
    """In the process that is the checkpoint: where it is, so that whoever goes on elsewhere can tell."""
    global _folder
    _folder = _current_folder()


def unfreeze():
    """No checkpoint is left to share pages with."""
    global _freezes, _settled
    _freezes = _settled = 0
    gc.unfreeze()


def helpers():
    """Process ids of children that are nobody's loss: libraries start them, and start them again."""
    pids = []
    for tracker in _trackers():
        pids.append(getattr(tracker, "_pid", None))
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    pids.append(getattr(server, "_forkserver_pid", None))
    return [pid for pid in pids if type(pid) is int]


def resume(variables=None):
    """In a worker that came of a checkpoint, before anything is asked of it; ``variables`` maps bytes to bytes.

    They are added to the environment, which is otherwise as the user left it. Returns what a start returns.
    """
    zygote.differ()
    for step in (lambda: zygote.merge_environment(variables or {}), _start_helpers_anew, _wake_alone, _follow_folder):
        try:
            step()
        except Exception as error:  # what a library keeps to itself may change; the session is worth more
            _cob.log("warning", f"a restored session is not quite its own: {type(error).__name__}: {error}")
    return engine.introduce()


# -- before the fork -------------------------------------------------------------------------


def _look_away():
    """The collector never looks at what exists now, and so writes to none of its pages."""
    global _freezes, _settled
    collects = gc.isenabled()
    if collects:
        gc.collect(1)  # bounded, and most garbage is young
    _freezes += 1
    if _freezes % LOOK_EVERY == 0 and gc.get_freeze_count() > _settled * GROWTH_MIN:
        gc.unfreeze()
        if collects:
            gc.collect()
        _settled = 0
    gc.freeze()
    if not _settled:
        _settled = gc.get_freeze_count()


def _current_folder():
    try:
        return os.getcwd()
    except OSError:
        return None  # it is gone


# -- after it --------------------------------------------------------------------------------


def _trackers():
    """Each has one child, which frees what processes leave behind."""
    for name in ("multiprocessing", "loky.backend", "joblib.externals.loky.backend"):
        tracker = getattr(sys.modules.get(name + ".resource_tracker"), "_resource_tracker", None)
        if tracker is not None:
            yield tracker


def _start_helpers_anew():
    """The children of the process that was copied are not ours: what talks to them starts others when needed."""
    for tracker in _trackers():
        _close(tracker, "_fd", "_pid")
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if server is not None:
        _close(server, "_forkserver_alive_fd", "_forkserver_pid", "_forkserver_address")
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes._children.clear()  # else it would be waited for them, or their numbers be killed, at the end


def _close(owner, descriptor, *others):
    number = getattr(owner, descriptor, None)
    if number is not None:
        os.close(number)
    for name in (descriptor, *others):
        if hasattr(owner, name):
            setattr(owner, name, None)


def _wake_alone():
    loop = sys.modules.get("cob.session_loop")
    if loop is not None:
        loop.renew()
    channels = sys.modules.get("cob.channels")
    if channels is not None:
        channels.renew()


def _follow_folder():
    folder = _current_folder()
    if folder is not None and folder != _folder:
        history.directories.append(folder)
