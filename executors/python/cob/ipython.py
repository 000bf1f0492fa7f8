"""IPython in a session: when it is loaded, and what every cell owes it from then on.

Nothing here imports IPython before something needs it: a cell with ``%``, ``!``
or ``?``, a call of ``get_ipython()``, or a library that imports IPython itself.
In that last case not even the shell is created until somebody asks for it.
"""

import sys

from cob import cells, engine, history

_creating = False


def load():
    """The shell; created on first use, None if IPython cannot be imported."""
    global _creating
    if engine.shell is not None or _creating:
        return engine.shell
    _creating = True
    try:
        import IPython.core.interactiveshell  # noqa: F401
    except ImportError:
        return None
    else:
        from cob import shell

        engine.shell = shell.create()
        engine.before_cell.append(before_cell)
        engine.after_cell.append(after_cell)
    finally:
        _creating = False
    return engine.shell


def adopt(module):
    """IPython was imported: whoever asks it for the shell gets ours, created at that moment.

    Replaced on the class, because ``IPython.get_ipython``, ``display`` and many
    libraries ask ``InteractiveShell.initialized()`` and ``.instance()``; ``load``
    takes the replacements away again.
    """
    module.InteractiveShell.initialized = classmethod(lambda cls: True)
    module.InteractiveShell.instance = classmethod(lambda cls, *args, **kwargs: load())


def release(kind):
    """The opposite of adopt, right before the shell is created."""
    for name in ("initialized", "instance"):
        if name in vars(kind):
            delattr(kind, name)


# -- what every cell owes the shell ----------------------------------------------------------


def before_cell():
    shell = engine.shell
    shell.execution_count = engine.count
    shell.events.trigger("pre_execute")
    if not engine.silent:
        shell.events.trigger("pre_run_cell", _info())


def after_cell():
    shell = engine.shell
    shell.events.trigger("post_execute")
    result = _result()
    shell.last_execution_result, shell.last_execution_succeeded = result, engine.failure is None
    if not engine.silent:
        shell.events.trigger("post_run_cell", result)
    engine.payload.extend(shell.payload_manager.read_payload())
    shell.payload_manager.clear_payload()
    if engine.storing:
        shell.execution_count = engine.count + 1


def _info():
    from IPython.core.interactiveshell import ExecutionInfo

    values = {
        "raw_cell": engine.cell, "store_history": engine.storing, "silent": engine.silent,
        "shell_futures": True, "cell_id": None, "transformed_cell": engine.cell,
    }
    known = ExecutionInfo.__init__.__code__.co_varnames  # it gained parameters over the years
    return ExecutionInfo(**{name: value for name, value in values.items() if name in known})


def _result():
    from IPython.core.interactiveshell import ExecutionResult

    result = ExecutionResult(_info())
    result.execution_count = engine.count if engine.storing else None
    result.result, result.error_in_exec = engine.value, engine.failure
    return result


# -- code that is not plain Python -----------------------------------------------------------


def compile_cell(code, filename):
    """Compile with what the user told the shell: transformers, interactivity. None: nothing special."""
    shell = engine.shell
    if shell is None:
        kind = sys.modules["IPython.core.interactiveshell"].InteractiveShell
        interactivity = vars(kind).get("ast_node_interactivity")
        transformers, changed = [], False
    else:
        interactivity = shell.ast_node_interactivity
        transformers, changed = shell.ast_transformers, shell.transformers_changed()
    if not isinstance(interactivity, str):  # the trait itself: nobody has set it
        interactivity = "last_expr"
    if changed:
        code = transform(code, filename)
    if interactivity == "last_expr" and not transformers:
        return cells.compile_cell(code, filename) if changed else None
    from cob import tree

    return tree.compile_cell(code, filename, interactivity, shell.transform_ast if transformers else None)


def transform(code, filename):
    """Magics, shell escapes and help as Python; tracebacks show the result, as in IPython."""
    changed = load().transform_cell(code)
    if changed.strip() != code.strip():
        cells.keep(filename, changed, engine.count)
        if engine.storing:  # In holds what ran, %history what was typed
            history.inputs[engine.count] = changed.rstrip("\n")
    return changed


# -- errors ----------------------------------------------------------------------------------


def render(error):
    """The traceback if IPython has something to say about it, else None."""
    from IPython.core.error import UsageError

    shell = engine.shell
    if isinstance(error, UsageError):
        return [f"UsageError: {error}"]
    from cob import errors

    tb = errors.visible(error.__traceback__)
    if shell.custom_exceptions and isinstance(error, shell.custom_exceptions):
        return [str(line) for line in shell.CustomTB(type(error), error, tb) or []]
    if getattr(shell.InteractiveTB, "mode", "Context") != "Context":
        return shell.InteractiveTB.structured_traceback(type(error), error, tb)
    return None
