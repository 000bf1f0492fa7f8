"""The user's IPython profile: configuration and start-up files, as ipykernel reads them."""

import os

from cob import engine

CONFIG_FILES = ("ipython_config.py", "ipython_kernel_config.py")


def directory():
    base = os.environ.get("IPYTHONDIR") or os.path.join(os.path.expanduser("~"), ".ipython")
    return os.path.join(base, "profile_default")


def apply():
    """At the start of a session: load IPython if the profile has anything to say, and run what it says."""
    if is_empty():
        return
    from cob import ipython

    try:
        shell = ipython.load()
        if shell is not None:
            run_startup(shell)
    except Exception as error:  # a broken profile must not cost the session
        engine.complain(f"the IPython profile could not be applied: {type(error).__name__}: {error}")


def is_empty():
    """Whether the profile has nothing to say."""
    where = directory()
    return not startup_files() and not any(os.path.exists(os.path.join(where, name)) for name in CONFIG_FILES)


def startup_files():
    where = os.path.join(directory(), "startup")
    try:
        names = sorted(os.listdir(where))
    except OSError:
        return []
    return [os.path.join(where, name) for name in names if name.endswith((".py", ".ipy"))]


def config():
    """The configuration of the shell; a broken file is reported and skipped."""
    from traitlets.config import Config
    from traitlets.config.loader import ConfigFileNotFound, PyFileConfigLoader

    merged = Config()
    for name in CONFIG_FILES:
        try:
            merged.merge(PyFileConfigLoader(name, path=directory()).load_config())
        except ConfigFileNotFound:
            continue
        except Exception as error:
            engine.complain(f"{name} was skipped: {type(error).__name__}: {error}")
    return merged


def run_startup(shell):
    """Extensions, lines and files that the profile asks for."""
    app = shell.config.InteractiveShellApp
    for extension in app.get("extensions") or []:
        shell.extension_manager.load_extension(extension)
    for line in app.get("exec_lines") or []:
        shell.run_cell(line, store_history=False)
    for path in [*startup_files(), *(app.get("exec_files") or [])]:
        if path.endswith(".ipy"):
            shell.safe_execfile_ipy(path)
        else:
            shell.safe_execfile(path, shell.user_ns, raise_exceptions=False)
