"""matplotlib in a session: which backend draws, and figures as images.

The choice is made in matplotlib's own settings, not in ``MPLBACKEND``: child
processes inherit the environment, and a notebook backend is broken there.
"""

import os
import sys

INLINE = "module://matplotlib_inline.backend_inline"
OWN = "module://cob.matplotlib_backend"


def choose_backend(matplotlib):
    """matplotlib was imported just now; a choice of the user's own stays."""
    if os.environ.get("MPLBACKEND") or _chosen(matplotlib):
        return
    backend = INLINE if _importable("matplotlib_inline") and _importable("IPython") else OWN
    # Not use(): matplotlib would resolve the name at once and import the backend.
    matplotlib.rcParams["backend"] = backend
    matplotlib.rcParamsDefault["backend"] = backend


def follow_environment(matplotlib):
    """matplotlib was imported before the session had its environment."""
    backend = os.environ.get("MPLBACKEND")
    if backend:
        matplotlib.rcParams["backend"] = matplotlib.rcParamsDefault["backend"] = backend
        return
    for settings in (matplotlib.rcParams, matplotlib.rcParamsDefault):
        dict.__setitem__(settings, "backend", matplotlib.rcsetup._auto_backend_sentinel)
    choose_backend(matplotlib)


def _chosen(matplotlib):
    """Whether a matplotlibrc file names a backend."""
    value = dict.__getitem__(matplotlib.rcParams, "backend")
    return isinstance(value, str)


def _importable(name):
    from importlib.util import find_spec

    try:
        return name in sys.modules or find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def png(figure):
    """A figure as PNG, or None if there is nothing on it."""
    if not figure.axes and not figure.lines:
        return None
    from io import BytesIO

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if figure.canvas is None or not hasattr(figure.canvas, "print_png"):
        FigureCanvasAgg(figure)
    stream = BytesIO()
    figure.canvas.print_figure(
        stream, format="png", bbox_inches="tight", facecolor=figure.get_facecolor(),
        edgecolor=figure.get_edgecolor(), dpi=figure.dpi,
    )
    return stream.getvalue()
