"""A matplotlib backend for sessions without IPython: figures become images of the running cell.

A figure is shown when ``plt.show()`` asks for it or else when the cell ends, and
closed then, as the inline backend of IPython does.
"""

from matplotlib import pyplot
from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cob import display, engine


class FigureManager(FigureManagerBase):
    """Keeps a figure; there is no window."""

    @classmethod
    def pyplot_show(cls, *args, **kwargs):
        show()

    def show(self):
        show_figure(self.canvas.figure)


class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager


def new_figure_manager_given_figure(number, figure):
    return FigureManager(FigureCanvas(figure), number)


def show(*args, **kwargs):
    """Show and close all figures."""
    try:
        for manager in Gcf.get_all_fig_managers():
            show_figure(manager.canvas.figure)
    finally:
        if Gcf.get_all_fig_managers():
            pyplot.close("all")


def show_figure(figure):
    data, metadata = display.formatted(figure)
    if "image/png" in data:
        display.publish(data, metadata)


engine.after_cell.append(show)
