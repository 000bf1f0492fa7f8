"""Objects as MIME bundles, and ``display()``.

With an IPython shell its formatters decide, because users and libraries register
their own there; without one the same methods are asked here (``_repr_html_``,
``_repr_mimebundle_``, ``_ipython_display_``, ...), so a bare interpreter shows
rich output as well.
"""

import sys

import _cob
from cob import engine, pretty

METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("application/pdf", "_repr_pdf_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
    ("application/javascript", "_repr_javascript_"),
)
NAMES = {name for _, name in METHODS} | {"_repr_mimebundle_", "_ipython_display_"}
CANARY = "_ipython_canary_method_should_not_exist_"
TYPES_MAX = 10_000

_plain_types = set()  # types without any rich method, so that they are looked up only once


def bundle(value, include=None, exclude=None):
    """(items for the native side, metadata as JSON); no items if there is nothing to show."""
    data, metadata = formatted(value, include, exclude)
    return items(data), encoded(metadata)


def formatted(value, include=None, exclude=None):
    """(data, metadata) by MIME type."""
    if engine.shell is not None:
        engine.formatting += 1  # errors in here must not end the cell
        try:
            return engine.shell.display_formatter.format(value, include, exclude)
        finally:
            engine.formatting -= 1
    if not _is_rich(value):
        data, metadata = {}, {}
    else:
        if _shows_itself(value):
            return {}, {}
        data, metadata = _rich(value, include, exclude)
    if "text/plain" not in data and _wanted("text/plain", include, exclude):
        text = guarded(pretty.representation, value)
        if text is not None:
            data["text/plain"] = text
    return data, metadata


def _is_rich(value):
    kind = type(value)
    if isinstance(value, type):
        return False
    if kind not in _plain_types:
        names = set()
        for base in getattr(kind, "__mro__", ()):
            names.update(base.__dict__)
        if names & NAMES or "__getattr__" in names or kind.__getattribute__ is not object.__getattribute__:
            return True
        if kind.__module__ == "matplotlib.figure":
            return True
        if len(_plain_types) < TYPES_MAX:
            _plain_types.add(kind)
    own = getattr(value, "__dict__", None)
    return bool(own) and isinstance(own, dict) and not NAMES.isdisjoint(own)


def method(value, name):
    """A method by name; None for objects that answer to any name."""
    try:
        if isinstance(value, type) or callable(getattr(value, CANARY, None)):
            return None
        found = getattr(value, name, None)
    except Exception:  # a broken __getattr__ means: no such method
        return None
    return found if callable(found) else None


def guarded(function, *arguments):
    """Call a repr; a failure is shown to the user and counts as "no such representation"."""
    try:
        return function(*arguments)
    except NotImplementedError:
        return None
    except Exception as error:
        from cob import errors

        text = "\n".join(errors.render(error))
        sys.stderr.write(errors.clean(text) + "\n")
        return None


def _shows_itself(value):
    show = method(value, "_ipython_display_")
    if show is None:
        return False
    done = []
    guarded(lambda: (show(), done.append(True)))
    return bool(done)


def _wanted(mime, include, exclude):
    return (not include or mime in include) and (not exclude or mime not in exclude)


def _rich(value, include, exclude):
    data, metadata = {}, {}
    whole = method(value, "_repr_mimebundle_")
    if whole is not None:
        result = guarded(lambda: whole(include=include, exclude=exclude))
        if isinstance(result, tuple) and len(result) == 2:
            data, metadata = dict(result[0]), dict(result[1])
        elif isinstance(result, dict):
            data = dict(result)
        data = {mime: part for mime, part in data.items() if _wanted(mime, include, exclude)}
    for mime, name in METHODS:
        if mime in data or not _wanted(mime, include, exclude):
            continue
        found = method(value, name)
        result = guarded(found) if found is not None else None
        if isinstance(result, tuple) and len(result) == 2:
            result, metadata[mime] = result
        if result is not None:
            data[mime] = result
    if not data and type(value).__module__ == "matplotlib.figure":
        from cob import figures

        data["image/png"] = guarded(figures.png, value)
    return {mime: part for mime, part in data.items() if part is not None}, metadata


def items(data):
    """The bundle as the native side takes it: (MIME type, encoding, payload)."""
    found = []
    for mime, part in data.items():
        if isinstance(part, str):
            found.append((mime, "t", part if part.isascii() else _wire(part)))
        elif isinstance(part, (bytes, bytearray, memoryview)):
            part = bytes(part)
            if mime.startswith("text/") or mime in ("image/svg+xml", "application/javascript"):
                found.append((mime, "t", part.decode("utf-8", "replace")))
            else:
                found.append((mime, "b", part))
        else:
            from cob import encoding

            found.append((mime, "j", encoding.dumps(part)))
    return found


def _wire(text):
    """Lone surrogates are legal in Python and nowhere else."""
    return text.encode("utf-8", "backslashreplace").decode()


def encoded(mapping):
    if not mapping:
        return "{}"
    from cob import encoding

    return encoding.dumps(mapping)


def publish(data, metadata=None, transient=None, update=False):
    """Send one display_data or update_display_data."""
    _cob.display(items(data), encoded(metadata), encoded(transient), bool(update))


def display(*objects, include=None, exclude=None, metadata=None, transient=None, display_id=None,
            raw=False, clear=False, **options):
    """Show objects in their richest form; with ``display_id`` returns a handle to update them."""
    update = options.pop("update", False)
    transient = dict(transient or {}, **options.pop("transient", {}))
    if display_id is None and update:
        raise TypeError("display_id required for update_display")
    handle = None
    if display_id is not None:
        handle = DisplayHandle(None if display_id is True else display_id)
        transient["display_id"] = handle.display_id
    if clear:
        _cob.clear_output(True)
    for value in objects:
        if raw:
            data, extra = dict(value), dict(metadata or {})
        else:
            data, extra = formatted(value, include, exclude)
            if not data:
                continue  # it showed itself
            extra = dict(extra, **(metadata or {}))
        publish(data, extra, transient, update)
    return handle


class DisplayHandle:
    """What ``display(..., display_id=True)`` returns."""

    def __init__(self, display_id=None):
        if display_id is None:
            import os

            display_id = os.urandom(16).hex()
        self.display_id = display_id

    def __repr__(self):
        return f"<{type(self).__name__} display_id={self.display_id}>"

    def display(self, value, **options):
        """Show again, in a new place, what this handle updates."""
        display(value, display_id=self.display_id, **options)

    def update(self, value, **options):
        """Replace what was shown, wherever it is."""
        display(value, display_id=self.display_id, update=True, **options)
