"""What code can ask of its own session's past: ``cob.checkpoint()``, ``cob.undo()`` and the like.

The host answers at once; what was asked for happens when the running cell has
ended, however it ends. Only the main thread of the running cell can ask.
"""

import re
import sys

import _cob

NAME = re.compile(r"s[0-9]+\.k[0-9]+")
MAGIC = re.compile(r"^%(checkpoints?|restore|undo)(?:[ \t]+(.*?))?[ \t]*$", re.MULTILINE)
MINUTE, HOUR, DAY = 60, 3600, 86400
NOT_UNDONE = "files, mail and databases are not undone"


def checkpoint(label, durable, force):
    if label is not None and (not isinstance(label, str) or not label):
        raise TypeError("the label of a checkpoint is a text")
    wanted = {"durable": bool(durable), "force": bool(force)}
    if label is not None:
        wanted["label"] = label
    name = _ask("checkpoint", wanted)["checkpoint"]
    called = f" ({label})" if label else ""
    sys.stdout.write(f"{name}{called} is taken when this cell ends\n")
    return name


def checkpoints():
    return Checkpoints(map(Checkpoint, _ask("checkpoints", {})))


def restore(name):
    if isinstance(name, Checkpoint):
        name = name.name
    if not isinstance(name, str):
        raise TypeError("a checkpoint is known by its name or its label")
    _restore({"checkpoint" if NAME.fullmatch(name) else "label": name})


def undo(count):
    if not isinstance(count, int) or count < 1:
        raise ValueError("at least one cell can be undone")
    _restore({"undo": count})


def _restore(wanted):
    found = _ask("restore", wanted)
    place = found["checkpoint"] + (f" ({found['label']})" if found.get("label") else "")
    if isinstance(found.get("count"), int):
        place += f", before In [{found['count'] + 1}],"
    sys.stdout.write(f"back to {place} when this cell ends; {NOT_UNDONE}\n")


def _ask(kind, arguments):
    import cob
    from cob import encoding

    outcome, answer = _cob.call(kind, encoding.strict(arguments))
    if outcome == "value":
        return encoding.loads(answer)
    if outcome == "failed":
        ename, evalue = encoding.loads(answer)
        raise cob.CheckpointError(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", ename).lower(), evalue)
    raise cob.CheckpointError("unavailable", answer or "this host keeps no checkpoints")


class Checkpoint:
    """One of the session's checkpoints; what the host says of it are its attributes."""

    label = parent = private_bytes = bytes = new_bytes = None

    def __init__(self, view):
        self.findings, self.missing = [], []
        self.__dict__.update(view)
        self.name = self.__dict__.pop("checkpoint")

    def restore(self):
        """Goes back to it when this cell ends."""
        restore(self.name)

    def __repr__(self):
        called = f" {self.label!r}" if self.label else ""
        return f"<checkpoint {self.name}{called}, before In [{self.count + 1}], {self.tier}>"


class Checkpoints(list):
    """A list that is shown as a table."""

    def __repr__(self):
        if not self:
            return "no checkpoints"
        rows = [("", "before", "taken", "kept in", "size", "")]
        rows += [_row(checkpoint) for checkpoint in self]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(checkpoint):
    size = checkpoint.private_bytes if checkpoint.bytes is None else checkpoint.bytes
    about = [checkpoint.label] if checkpoint.label else ["(automatic)"] if checkpoint.automatic else []
    if checkpoint.missing:
        about.append("without " + ", ".join(missing["name"] for missing in checkpoint.missing[:5]))
    where = {"memory": "memory", "durable": "store", "both": "both"}.get(checkpoint.tier, checkpoint.tier)
    return (checkpoint.name, f"In [{checkpoint.count + 1}]", _age(checkpoint.taken_at), where, _size(size),
            " ".join(about))


def _age(microseconds):
    import time

    seconds = max(0, int(time.time() - microseconds / 1e6))
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name} ago"
    return f"{seconds} s ago"


def _size(count):
    if count is None:
        return ""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


# -- magics ----------------------------------------------------------------------------------


def magic(name, line):
    """``%checkpoint [label] [--durable] [--force]``, ``%checkpoints``, ``%restore NAME``, ``%undo [N]``."""
    words = line.split()
    options = {word for word in words if word.startswith("--")}
    rest = " ".join(word for word in words if word not in options)
    _check_usage(name, options, rest)
    if name == "checkpoint":
        checkpoint(rest or None, "--durable" in options, "--force" in options)
    elif name == "checkpoints":
        return checkpoints()
    elif name == "restore":
        restore(rest)
    else:
        undo(int(rest or 1))
    return None


def _check_usage(name, options, rest):
    allowed, usage = _USAGE[name]
    right = {"checkpoints": not rest, "restore": bool(rest), "undo": not rest or rest.isdecimal()}.get(name, True)
    if not right or options - allowed:
        usage_error = ValueError
        if "IPython.core.error" in sys.modules:
            usage_error = sys.modules["IPython.core.error"].UsageError
        raise usage_error(f"it is used like this: {usage}")


_USAGE = {
    "checkpoint": ({"--durable", "--force"}, "%checkpoint [LABEL] [--durable] [--force]"),
    "checkpoints": (set(), "%checkpoints"),
    "restore": (set(), "%restore NAME_OR_LABEL"),
    "undo": (set(), "%undo [CELLS]"),
}
_ABOUT = {
    "checkpoint": "Take a checkpoint of the session when this cell ends.",
    "checkpoints": "The checkpoints of the session.",
    "restore": "Go back to a checkpoint when this cell ends; what was done outside of the session is not undone.",
    "undo": "Go back to before the last cell, or the last CELLS cells, when this one ends.",
}


def magics():
    """Name and function of each, for IPython."""
    for name, (_, usage) in _USAGE.items():
        def run(line, name=name):
            return magic(name, line)

        run.__name__ = run.__qualname__ = name
        run.__doc__ = f"{_ABOUT[name]}\n\n    {usage}\n"
        yield name, run


def without_magics(code):
    """The cell with these magics as Python; itself if it has none. They need no IPython."""
    def call(match):
        return f"__import__('cob.timeline').timeline.magic({match[1]!r}, {match[2] or ''!r})"

    return MAGIC.sub(call, code)
