"""Exceptions as the client sees them."""

import _cob


def report(error):
    import traceback

    lines = traceback.format_exception(type(error), error, error.__traceback__)
    _cob.error(type(error).__name__, str(error), lines)
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "error"
