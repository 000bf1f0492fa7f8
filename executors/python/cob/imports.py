"""Hooks that run right after a module was imported for the first time."""


def install():
    """Watch the imports of the session."""
