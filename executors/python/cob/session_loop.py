"""The event loop of the session.

Nothing of this exists before asyncio is imported.  From then on:

* the loop runs while the session is idle (`_idle`), so tasks go on between cells;
* a cell with top-level ``await`` becomes a task of the loop;
* a plain cell runs *outside* the loop but with the loop marked as the running one,
  so ``asyncio.create_task`` works in it; and because the mark is only a mark,
  ``asyncio.run`` and ``loop.run_until_complete`` work in it, too.

The selector is poll: epoll instances are shared by fork, so a forked checkpoint
would unregister the descriptors of its parent.
"""

import functools

import _cob
from cob import engine

DRAIN_S_MAX = 1.0  # for what an interrupted cell left behind

_asyncio = _loop = None
_watched = None  # the descriptor whose news stop the loop


def install(asyncio):
    """asyncio was imported just now, by a cell or before the session began."""
    global _asyncio
    _asyncio = asyncio
    # Patched for every loop, because a user's own loop refuses to run below the mark.
    base = asyncio.BaseEventLoop
    base.run_forever = _outside(base.run_forever)
    base.run_until_complete = _outside(base.run_until_complete)
    asyncio.run = asyncio.runners.run = _outside(asyncio.run)
    if hasattr(asyncio, "Runner"):
        asyncio.Runner.run = _outside(asyncio.Runner.run)
        asyncio.Runner.close = _outside(asyncio.Runner.close)
    engine.before_cell.append(enter)
    engine.after_cell.append(leave)
    if _cob.running():
        enter()


def _outside(function):
    """Call ``function`` without the mark, if the mark is all that there is."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        events = _asyncio.events
        if _loop is None or events._get_running_loop() is not _loop or _loop.is_running():
            return function(*args, **kwargs)
        events._set_running_loop(None)
        try:
            return function(*args, **kwargs)
        finally:
            events._set_running_loop(_loop)

    return call


def _create():
    import selectors

    global _loop
    _loop = _asyncio.SelectorEventLoop(selectors.PollSelector())
    _loop.set_exception_handler(_report)
    _cob.set_idle_hook(_idle)


def follow_environment():
    """The loop was made before the session had its environment."""
    if _loop is not None:
        _loop.set_debug(_asyncio.coroutines._is_debug_mode())


def enter():
    """Before a cell: make the session's loop the current one and mark it as running."""
    if _loop is None or _loop.is_closed():
        _create()
    _repair()
    # asyncio.run leaves None behind, and a policy of the user's may hold another loop.
    _asyncio.set_event_loop(_loop)
    _asyncio.events._set_running_loop(_loop)


def leave():
    """After a cell: without the mark, so that the loop itself can run."""
    _repair()
    _asyncio.events._set_running_loop(None)


def run(coroutine):
    """Run the coroutine of a cell to its end."""
    if _asyncio is None:
        import asyncio  # noqa: F401  (the hook after the import calls install)
    if _loop is None:
        enter()
    task = _loop.create_task(coroutine)
    try:
        return _loop.run_until_complete(task)
    except BaseException as error:
        error.__traceback__ = _drain(task) or error.__traceback__
        raise


def _drain(task):
    """A cell was interrupted: without this its coroutine would go on in the background.

    Returns the traceback of the place where it waited, which tells the user more than the loop's own.
    """
    if task.done():
        return None
    _repair()
    task.cancel()
    timer = _loop.call_later(DRAIN_S_MAX, _loop.stop)
    task.add_done_callback(_stop)
    try:
        _loop.run_forever()
    except KeyboardInterrupt:
        pass  # the user presses stop again: then the task keeps its cancellation pending
    finally:
        timer.cancel()
        task.remove_done_callback(_stop)
    if not task.done():
        return None
    try:
        task.result()  # seen: no message about an exception that was never retrieved
    except BaseException as error:
        return error.__traceback__
    return None


def _stop(task):
    _loop.stop()


def _repair():
    """An interrupt can hit asyncio between two lines that belong together: nothing runs here, so say so."""
    if _loop.is_running():
        _loop._thread_id = None
        _asyncio.events._set_running_loop(None)
    _unwatch()


def _idle(descriptor):
    """Run the loop until there is something to read from the kernel."""
    if _loop.is_closed():
        _create()
    global _watched
    _watched = descriptor
    try:
        _loop.add_reader(descriptor, _loop.stop)
        _loop.run_forever()
    except (KeyboardInterrupt, SystemExit):
        pass  # raised by a background task; asyncio has stored it in the task
    finally:
        _unwatch()


def _unwatch():
    """A message that arrives while a cell awaits must not stop the loop."""
    global _watched
    if _watched is not None:
        _loop.remove_reader(_watched)
        _watched = None


def _report(loop, context):
    """An error of a task belongs to the cell that started the task, as all its output does."""
    owner = context.get("task") or context.get("future")
    task_context = getattr(owner, "get_context", None)
    if task_context is None:
        loop.default_exception_handler(context)
    else:
        task_context().copy().run(loop.default_exception_handler, context)


# -- checkpoints -----------------------------------------------------------------------------


def descriptors():
    """What the loop itself holds open."""
    if _loop is None or _loop.is_closed():
        return ()
    return _loop._ssock.fileno(), _loop._csock.fileno()


def count_tasks():
    """How many tasks go on between cells."""
    return 0 if _loop is None or _loop.is_closed() else len(_asyncio.all_tasks(_loop))


def let_threads_rest():
    """The loop's own pool ends if all of its threads are idle; the loop makes another one when it needs it."""
    pool = getattr(_loop, "_default_executor", None)
    if getattr(pool, "_thread_name_prefix", None) != "asyncio" or not pool._work_queue.empty():
        return
    if pool._idle_semaphore._value >= len(pool._threads):
        _loop._default_executor = None
        pool.shutdown()


def renew():
    """In a copy of the process: what wakes the loop up would wake any of the copies."""
    if _loop is None or _loop.is_closed():
        return
    _repair()
    _loop._close_self_pipe()
    _loop._make_self_pipe()
    if _loop._signal_handlers:
        import signal

        signal.set_wakeup_fd(_loop._csock.fileno())


def close():
    """The session ends: give tasks the chance to clean up."""
    if _loop is None or _loop.is_closed():
        return
    _asyncio.events._set_running_loop(None)
    tasks = [task for task in _asyncio.all_tasks(_loop) if not task.done()]
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            _loop.run_until_complete(_asyncio.wait(tasks, timeout=DRAIN_S_MAX))
        _loop.run_until_complete(_loop.shutdown_asyncgens())
    except (KeyboardInterrupt, RuntimeError):
        pass
    finally:
        _loop.close()
