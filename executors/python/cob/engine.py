"""The functions that the Rust half calls, and the state of the session.

Invariant: this file imports nothing that the interpreter has not loaded anyway;
whatever a plain ``1+1`` does not need lives in another file and is imported when
it is first needed.  ``execute`` never raises: every end of a cell is a status.
"""

import builtins
import os
import sys
from _contextvars import ContextVar

import _cob
from cob import cells, history

COROUTINE = 0x80
# IPython runs these without their "%" if a cell is one line long; the words alone are no reason to import it.
AUTOMAGIC = frozenset(
    "alias alias_magic autoawait autocall automagic autosave bookmark cat cd clear colors conda config cp debug dhist "
    "dirs doctest_mode ed edit env gui hist history killbgscripts ldir less lf lk ll load load_ext loadpy logoff "
    "logon logstart logstate logstop ls lsmagic lx macro magic mamba man matplotlib micromamba mkdir more mv notebook "
    "page pastebin pdb pdef pdoc pfile pinfo pinfo2 pip popd pprint precision prun psearch psource pushd pwd pycat "
    "pylab quickref recall rehashx reload_ext rep rerun reset reset_selective rm rmdir run save sc set_env store sx "
    "system tb time timeit unalias unload_ext uv who who_ls whos xdel xmode".split()
)

origin = ContextVar("cob_origin", default=0)  # the execution that output belongs to
namespace = None  # the dictionary of __main__
shell = None  # the IPython shell, once something needed it
count = 0
allow_stdin = False
silent = False
formatting = 0  # how deep we are in representations, where an error is not the cell's
payload = []  # what the reply carries besides the status (pages, next input, exit)
before_cell = []  # called before and after every cell; see imports.py for who registers
after_cell = []
cell = ""  # the text of the running cell, whether history keeps it, and how it ended
storing = False
value = failure = None


def load():
    """What is the same for every session of this interpreter; a zygote does it before it imports and forks."""
    global namespace
    from cob import imports, stdio

    _cob.set_origin_var(origin)
    main = sys.modules["__main__"]
    namespace = main.__dict__
    namespace["__builtins__"] = builtins
    if sys.argv[:1] in (["-c"], []):
        sys.argv = [""]
    stdio.install()
    history.install(namespace)
    imports.install()
    builtins.display = _display
    builtins.exit = builtins.quit = namespace["exit"] = namespace["quit"] = leave
    sys.displayhook = displayhook
    builtins.get_ipython = namespace["get_ipython"] = _get_ipython
    if _has_ipython():
        builtins.__IPYTHON__ = True  # libraries recognise IPython by this name


def start(options_json, in_folder):
    """Prepare the session; returns the language info of kernel_info_reply and the banner.

    ``in_folder``: modules of the working folder can be imported, unless a script brings its own.
    """
    if namespace is None:
        load()
    introduction = arrive()
    if hasattr(builtins, "__IPYTHON__"):
        if os.path.isdir(os.path.join(os.environ.get("IPYTHONDIR") or os.path.expanduser("~/.ipython"))):
            from cob import profile

            profile.apply()
    if in_folder:
        sys.path.insert(0, "")
    if len(options_json) > 2:
        from cob import script

        script.prepare(options_json)
    return introduction


def arrive():
    """The part of the start that follows the environment and can be done again."""
    # What ipykernel sets: programs started by a cell must not wait in a pager.
    os.environ.update(TERM="xterm-color", CLICOLOR="1", PAGER="cat", GIT_PAGER="cat")
    history.enter_directory()
    return introduce()


def introduce():
    """The language info of kernel_info_reply, and the banner."""
    return _language_info(), f"Python {sys.version}\ncob {_cob.version}"


def _get_ipython():
    """The IPython shell of this session, or None without IPython."""
    from cob import ipython

    return ipython.load()


_get_ipython.__name__ = _get_ipython.__qualname__ = "get_ipython"


def _has_ipython():
    """A guess that costs a few stat calls; the import would cost a tenth of a second."""
    exists = os.path.exists
    return "IPython" in sys.modules or any(exists(entry + "/IPython/__init__.py") for entry in sys.path if entry)


def _language_info():
    version = "%d.%d.%d" % sys.version_info[:3]
    return (
        '{"name":"python","version":"' + version + '","mimetype":"text/x-python",'
        '"codemirror_mode":{"name":"ipython","version":3},"pygments_lexer":"ipython3",'
        '"nbconvert_exporter":"python","file_extension":".py"}'
    )


def execute(code, execution_count, is_silent, store_history, stdin_allowed, user_expressions_json):
    """Run one cell. Returns (status, user expressions as JSON, payload as JSON)."""
    global count, allow_stdin, silent
    count, silent, allow_stdin = execution_count, is_silent, stdin_allowed
    expressions, extra = "{}", "[]"
    try:
        status = _run(code, store_history and not is_silent)
        if status == "ok" and len(user_expressions_json) > 2:
            from cob import expressions as module

            expressions = module.evaluate(user_expressions_json)
        if payload:
            from cob import encoding

            extra = encoding.dumps(payload)
            payload.clear()
    except BaseException as error:  # an interrupt between user code and here
        status = fail(error)
    return status, expressions, extra


def rehearse():
    """Run a cell that does nothing and leaves nothing; hooks are left out, since they may be the user's."""
    global before_cell, after_cell, cell, silent
    hooks = before_cell, after_cell
    before_cell, after_cell = [], []
    try:
        execute("None", 0, True, False, False, "{}")
    finally:
        before_cell, after_cell = hooks
        cell, silent = "", False
        cells.forget(cells.name("None", 0))


def _run(code, store_history):
    global cell, storing, failure, value
    status, part = "ok", None
    cell, storing, failure, value = code, store_history, None, None
    if store_history:
        history.store(count, code)
    filename = cells.name(code, count)
    try:
        cells.keep(filename, code, count)
        for hook in before_cell:
            hook()
        for part, shows in _compile(code, filename):
            value = eval(part, namespace)
            if part.co_flags & COROUTINE:
                from cob import session_loop

                value = session_loop.run(value)
            if shows and value is not None and not silent:
                sys.displayhook(value)
    except BaseException as error:
        if part is not None and getattr(value, "cr_code", None) is part:
            value.close()  # interrupted before its first step: Python would complain that nobody awaited it
        failure = error
        status = fail(error)
    for hook in after_cell:
        hook()
    value = failure = None  # the session must not keep alive what the user deletes
    return status


def _compile(code, filename):
    """The code objects of a cell: plain Python here, everything else in syntax.py."""
    if "\n" not in code:
        word = code.split(None, 1)[:1]
        if word and word[0].isidentifier() and (shell is not None or word[0] in AUTOMAGIC):
            from cob import syntax

            parts = syntax.automagic(code, word[0], filename)
            if parts is not None:
                return parts
    try:
        if "IPython.core.interactiveshell" in sys.modules:
            from cob import ipython

            parts = ipython.compile_cell(code, filename)
            if parts is not None:
                return parts
        return cells.compile_cell(code, filename)
    except SyntaxError as error:
        refused = error
    from cob import syntax  # outside of the except clause: it would become the context of later errors

    return syntax.recover(code, filename, refused)


class Exit:
    """``exit`` and ``quit``: end the session; the bare name is enough, as in IPython."""

    def __call__(self, keep_kernel=False):
        ask_exit(bool(keep_kernel) if keep_kernel is not None else False)

    def __repr__(self):
        return "<end the session with exit() or quit()>"


leave = Exit()


def ask_exit(keep_kernel):
    payload.append({"source": "ask_exit", "keepkernel": keep_kernel})


def displayhook(value):
    """Show a value as the result of the running execution and remember it in Out."""
    if value is None:
        return
    kind = type(value)
    if kind is int or kind is bool or shell is None and (kind is float or kind is str and value.isprintable()):
        items, metadata = [("text/plain", "t", repr(value))], "{}"
    elif kind is Exit:
        value()
        return
    else:
        from cob import display

        items, metadata = display.bundle(value)
    history.store_result(count, value)
    if items:
        _cob.result(count, items, metadata)


def _display(*objects, **options):
    """The builtin ``display`` until its first use: then the real one takes its place."""
    from cob import display

    if builtins.display is _display:
        builtins.display = display.display
    return display.display(*objects, **options)


def complain(text):
    """Something beside the user's code went wrong: in the log of the kernel, and where the user sees it."""
    _cob.log("warning", text)
    sys.stderr.write(text + "\n")


def fail(error):
    """Tell the client about an exception; returns the status of the execution."""
    from cob import errors

    return errors.report(error)


def complete(code, cursor):
    """The content of a complete_reply."""
    from cob import complete as module

    return module.reply(code, cursor)


def inspect(code, cursor, detail):
    """The content of an inspect_reply."""
    from cob import inspecting

    return inspecting.reply(code, cursor, detail)


def is_complete(code):
    """The content of an is_complete_reply."""
    from cob import completeness

    return completeness.reply(code)


def summary():
    """Names, types and sizes of what the session holds, as JSON."""
    from cob import encoding, namespace as module

    return encoding.dumps(module.summary(namespace))


def comm(action, comm_id, target_name, target_module, data_json, metadata_json, buffers):
    """A comm message from the client. Returns the status, as execute does."""
    from cob import comms

    return comms.receive(action, comm_id, target_name, target_module, data_json, metadata_json, buffers)


def shutdown(restart):
    """The session ends in order: run what the user registered for the end of the program."""
    import atexit

    atexit._run_exitfuncs()
    module = sys.modules.get("cob.session_loop")
    if module is not None:
        module.close()
