"""Durable checkpoints: what a session holds, written down, and taken in again.

Variables that share values are saved together (graph.py), by one pickler that
knows what plain pickle does not (byvalue.py, arrays.py); what cannot be saved is
named with the reason (blame.py). A bundle holds references to functions of
rebuild.py, and to nothing else of this package: their names and arguments are
the format.

Both ends of the stream are the native side's: a writer has ``write(buffer)``,
``end_blob()`` and ``finish(outline)``; a reader has ``outline()`` and
``blob_into(buffer)``.
"""

import sys


def save(writer):
    """Write down everything the session holds. For a process that was forked for it and ends then."""
    from cob.bundle import saving

    saving.save(writer, sys.modules["__main__"].__dict__)


def load(reader, force):
    """Take a bundle in. Returns ``"value"`` and what came of it as JSON, or ``"declined"`` and the reasons."""
    from cob.bundle import loading

    return loading.load(reader, force, sys.modules["__main__"].__dict__)
