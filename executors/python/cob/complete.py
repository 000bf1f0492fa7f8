"""Completion on the live namespace."""

from cob import encoding


def reply(code, cursor):
    return encoding.dumps(
        {"status": "ok", "matches": [], "cursor_start": cursor, "cursor_end": cursor, "metadata": {}}
    )
