"""Output of threads goes to the cell that started them, however late it comes.

A new thread begins in an empty context, so it would not know the execution that
it belongs to.  ``threading.Thread`` and ``ThreadPoolExecutor.submit`` carry the
number over; that is all they do differently.
"""

from cob.engine import origin


def follow_threads(threading):
    Thread = threading.Thread
    start, bootstrap = Thread.start, Thread._bootstrap_inner

    def start_with_origin(self):
        self._cob_origin = origin.get()
        return start(self)

    def bootstrap_with_origin(self):
        number = self.__dict__.get("_cob_origin", 0)
        origin.set(number)
        context = self.__dict__.get("_context")
        if context is not None:  # 3.14 runs the thread's body in a context of its own
            context.run(origin.set, number)
        return bootstrap(self)

    start_with_origin.__name__, start_with_origin.__doc__ = "start", start.__doc__
    start_with_origin.__qualname__ = start.__qualname__
    Thread.start, Thread._bootstrap_inner = start_with_origin, bootstrap_with_origin


def follow_executors(module):
    Executor = module.ThreadPoolExecutor
    submit = Executor.submit

    def submit_with_origin(self, fn, /, *args, **kwargs):
        return submit(self, _run_with_origin, origin.get(), fn, *args, **kwargs)

    submit_with_origin.__name__, submit_with_origin.__doc__ = "submit", submit.__doc__
    submit_with_origin.__qualname__ = submit.__qualname__
    Executor.submit = submit_with_origin


def _run_with_origin(number, fn, /, *args, **kwargs):
    origin.set(number)
    return fn(*args, **kwargs)
