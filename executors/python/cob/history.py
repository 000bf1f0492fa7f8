"""``In``, ``Out`` and the underscore variables of a notebook.

The lists belong to the user's namespace and are never replaced, only filled:
IPython, when it is loaded, adopts the same objects.
"""

import builtins
import os

RESULTS_MAX = 1000  # then the oldest fifth of Out is dropped, as IPython does

inputs = [""]
outputs = {}
directories = []
raw_inputs = None  # IPython keeps what was typed apart from what was run
_namespace = None
_newest = ["", "", ""]  # what _, __ and ___ held when this module last set them
_previous = ["", "", "", ""]  # the newest input and what _i, _ii and _iii hold


def install(namespace):
    """Put the variables into the user's namespace."""
    global _namespace
    _namespace = namespace
    namespace.update(
        In=inputs, Out=outputs, _ih=inputs, _oh=outputs, _dh=directories,
        _="", __="", ___="", _i="", _ii="", _iii="",
    )


def enter_directory():
    """The session begins in the working directory of the process."""
    try:
        directories[:] = [os.getcwd()]
    except OSError:
        del directories[:]  # the directory is gone; the session works without one


def adopt(parsed, raw, results, visited):
    """IPython's history manager exists now: its lists, filled with ours, take their place."""
    global inputs, raw_inputs, outputs, directories
    visited[:] = directories or visited
    inputs, raw_inputs, outputs, directories = parsed, raw, results, visited
    _namespace.update(In=inputs, Out=outputs, _ih=inputs, _oh=outputs, _dh=directories)


def store(count, code):
    """A cell with this number is about to run."""
    _store(inputs, count, code)
    if raw_inputs is not None:
        _store(raw_inputs, count, code)
    _previous[1:] = _previous[:3]
    _previous[0] = code
    namespace = _namespace
    namespace["_i"], namespace["_ii"], namespace["_iii"] = _previous[1:]
    namespace[f"_i{count}"] = code


def _store(cells, count, code):
    while len(cells) < count:
        cells.append("")
    if len(cells) == count:
        cells.append(code)
    else:
        cells[count] = code


def store_result(count, value):
    """A cell's result becomes ``_``, ``_N`` and ``Out[N]``."""
    namespace = _namespace
    if value is outputs:
        return  # Out must not hold itself
    if len(outputs) >= RESULTS_MAX:
        _drop_oldest()
    # "_" belongs to the user as soon as the user has assigned it (gettext does, too).
    ours = "_" not in builtins.__dict__
    for index, name in enumerate(("_", "__", "___")):
        if name in namespace and namespace[name] is not _newest[index]:
            ours = False
    _newest[1:] = _newest[:2]
    _newest[0] = value
    if ours:
        namespace["_"], namespace["__"], namespace["___"] = _newest
    namespace[f"_{count}"] = value
    outputs[count] = value


def _drop_oldest():
    for number in sorted(outputs)[: RESULTS_MAX // 5]:
        _namespace.pop(f"_{number}", None)
        del outputs[number]
