"""Hooks that run right after a module was imported for the first time.

A session adapts a few libraries to notebooks (asyncio, threading, matplotlib,
IPython, comm, ...) but must not import them itself.  A finder at the head of
``sys.meta_path`` looks every new name up in one table; only for the names in it
the real loader's ``exec_module`` is followed by the hook.
"""

import sys

import _cob

hooks = {}  # module name -> function called with the module


def when(name):
    """Register the decorated function for the import of ``name``."""

    def register(function):
        hooks[name] = function
        return function

    return register


class Finder:
    """Finds nothing itself: asks the finders behind it and follows the loader they name."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        hook = hooks.get(name)
        if hook is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is Finder or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None:
                _follow(spec.loader, name)
                return spec
        return None


def _follow(loader, name):
    """Shadow one loader object's ``exec_module`` until the module has run."""
    original = getattr(loader, "exec_module", None)
    if original is None or isinstance(loader, type):
        return  # a namespace package, or a built-in module: none that we watch

    def exec_module(module):
        del loader.exec_module
        original(module)
        run(name, module)

    try:
        loader.exec_module = exec_module
    except AttributeError:
        pass  # a loader of the user's that takes no attributes: the module stays as it is


def run(name, module):
    """A hook that fails costs its feature, never the user's import."""
    hook = hooks.pop(name, None)
    if hook is None:
        return
    try:
        hook(module)
    except Exception as error:
        hook_failed(name, error)


def hook_failed(name, error):
    _cob.log("warning", f"the hook after import {name} failed: {type(error).__name__}: {error}")


def install():
    """Watch imports from now on; what a zygote imported before counts as imported now."""
    sys.meta_path.insert(0, Finder)
    for name in list(hooks):
        module = sys.modules.get(name)
        if module is not None:
            run(name, module)


@when("linecache")
def _(linecache):
    from cob import cells

    cells.publish_all(linecache)


@when("getpass")
def _(module):
    # getpass opens /dev/tty, which is not where the user of a session sits.
    from cob import stdio

    module.getpass = stdio.getpass


@when("threading")
def _(threading):
    from cob import threads

    threads.follow_threads(threading)


@when("concurrent.futures.thread")
def _(module):
    from cob import threads

    threads.follow_executors(module)


@when("asyncio")
def _(asyncio):
    from cob import session_loop

    session_loop.install(asyncio)


@when("IPython.core.interactiveshell")
def _(module):
    from cob import ipython

    ipython.adopt(module)


@when("comm")
def _(module):
    from cob import comms

    comms.plug_in(module)


@when("matplotlib")
def _(module):
    from cob import figures

    figures.choose_backend(module)
