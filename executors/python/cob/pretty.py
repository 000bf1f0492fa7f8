"""Values as text, laid out as IPython lays them out: 79 columns, containers broken and indented.

The printer offers the interface that ``_repr_pretty_`` methods expect of
IPython's, so that such classes look right where IPython is missing.  Layout:
a group is written on one line if it fits, otherwise at each of its breakables
a new line begins (the outermost group gives way first).
"""

from collections import deque

WIDTH = 79
ITEMS_MAX = 1000  # of one container


class Group:
    __slots__ = ("depth", "breakables", "broken")

    def __init__(self, depth):
        self.depth, self.breakables, self.broken = depth, deque(), False


class Break:
    """A place where a line may end; pending until its group is known to fit or not."""

    __slots__ = ("text", "indent", "group")

    def __init__(self, text, indent, group):
        self.text, self.indent, self.group = text, indent, group


class Printer:
    max_width, max_seq_length, verbose, newline = WIDTH, ITEMS_MAX, False, "\n"

    def __init__(self):
        self._out = []  # finished text
        self._pending = deque()  # str and Break, in the order of printing
        self._column = 0  # of the finished text
        self._width = 0  # of the pending text
        self.indentation = 0
        root = Group(0)
        self._groups = [root]
        self._queue = [[root]]  # open groups with pending breaks, by depth
        self.stack = []  # ids of the containers that are being printed

    # -- what _repr_pretty_ may call -----------------------------------------------------

    def text(self, text):
        width = len(text)
        if self._pending:
            self._pending.append(text)
            self._width += width
            self._break_outer()
        else:
            self._out.append(text)
            self._column += width

    def breakable(self, sep=" "):
        group = self._groups[-1]
        if group.broken:
            self._flush()
            self._out.append("\n" + " " * self.indentation)
            self._column = self.indentation
            return
        item = Break(sep, self.indentation, group)
        group.breakables.append(item)
        self._pending.append(item)
        self._width += len(sep)
        self._break_outer()

    def break_(self):
        group = self._next_group()
        if group is not None:
            self._break(group)
        self._flush()
        self._out.append("\n" + " " * self.indentation)
        self._column = self.indentation

    def begin_group(self, indent=0, open=""):
        if open:
            self.text(open)
        group = Group(self._groups[-1].depth + 1)
        self._groups.append(group)
        while len(self._queue) <= group.depth:
            self._queue.append([])
        self._queue[group.depth].append(group)
        self.indentation += indent

    def end_group(self, dedent=0, close=""):
        self.indentation -= dedent
        group = self._groups.pop()
        if not group.breakables:
            self._close(group)
        if close:
            self.text(close)

    def group(self, indent=0, open="", close=""):
        return _Block(lambda: self.begin_group(indent, open), lambda: self.end_group(indent, close))

    def indent(self, indent):
        def change(by):
            self.indentation += by

        return _Block(lambda: change(indent), lambda: change(-indent))

    def flush(self):
        self._flush()

    def pretty(self, value):
        """Print a value by the first printer that its class or a base of it has."""
        from cob import printers

        key = id(value)
        cycle = key in self.stack
        self.stack.append(key)
        self.begin_group()
        try:
            printers.choose(value)(value, self, cycle)
        finally:
            self.end_group()
            self.stack.pop()

    # -- layout --------------------------------------------------------------------------

    def _break_outer(self):
        """Too wide: break the outermost group that still can be broken."""
        while self.max_width < self._column + self._width:
            group = self._next_group()
            if group is None:
                return
            self._break(group)

    def _break(self, group):
        while group.breakables:
            self._write()
        while self._pending and isinstance(self._pending[0], str):
            self._write()

    def _write(self):
        item = self._pending.popleft()
        if isinstance(item, Break):
            self._write_break(item)
        else:
            self._out.append(item)
            self._column += len(item)
            self._width -= len(item)

    def _next_group(self):
        for level in self._queue:
            for position, group in enumerate(reversed(level)):
                if group.breakables:
                    del level[position]
                    group.broken = True
                    return group
            for group in level:
                group.broken = True
            level.clear()
        return None

    def _close(self, group):
        """The group has nothing left that could be broken."""
        level = self._queue[group.depth]
        if group in level:
            level.remove(group)

    def _write_break(self, item):
        self._width -= len(item.text)
        item.group.breakables.popleft()
        if item.group.broken:
            self._out.append("\n" + " " * item.indent)
            self._column = item.indent
        else:
            if not item.group.breakables:
                self._close(item.group)
            self._out.append(item.text)
            self._column += len(item.text)

    def _flush(self):
        for item in self._pending:
            text = item if isinstance(item, str) else item.text
            if not isinstance(item, str):
                item.group.breakables.remove(item)
            self._out.append(text)
            self._column += len(text)
        self._pending.clear()
        self._width = 0

    def result(self):
        self._flush()
        return "".join(self._out)


class _Block:
    """``with`` around a begin and an end."""

    def __init__(self, begin, end):
        self._begin, self._end = begin, end

    def __enter__(self):
        self._begin()

    def __exit__(self, *exception):
        self._end()


def pretty(value):
    printer = Printer()
    printer.pretty(value)
    return printer.result()


def representation(value):
    """The text/plain of a value; the short cut is for what fits on one line anyway."""
    kind = type(value)
    if kind in (list, tuple) and len(value) <= 20 and all(type(item) in SHORT for item in value):
        text = repr(value)
        if len(text) < WIDTH:
            return text
    return pretty(value)


SHORT = {int, float, bool, type(None), complex}
