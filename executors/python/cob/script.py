"""What a script finds when it starts: its arguments, its own name, its folder before all others."""

import sys

from cob import encoding, engine


def prepare(options_json):
    """``argv``: of sys; ``file``: of the script, or null; ``path``: its folder, or null."""
    options = encoding.loads(options_json)
    sys.argv = options.get("argv") or [""]
    if options.get("file"):
        engine.namespace["__file__"] = options["file"]
    if options.get("path"):
        if sys.path[:1] == [""]:
            del sys.path[0]
        sys.path.insert(0, options["path"])
