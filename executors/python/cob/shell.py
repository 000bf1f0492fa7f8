"""The IPython shell of a session.

Its class has the name that libraries look for (``ZMQInteractiveShell``) and the
``kernel`` trait that they use; execution stays with the engine. History is kept
in memory only: the kernel records it, and SQLite would add a thread.
"""

import os
import sys

import _cob
from cob import cells, display, engine, errors, history, kernel, profile, timeline
from IPython.core import page, payloadpage
from IPython.core.autocall import ZMQExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Any, Type
from traitlets.config import Config


class Publisher(DisplayPublisher):
    """display_data, update_display_data and clear_output of the shell."""

    def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **options):
        self._validate_data(data, metadata)
        for hook in self.__dict__.get("hooks", ()):
            message = hook({"content": {"data": data, "metadata": metadata or {}, "transient": transient or {}}})
            if message is None:
                return
        display.publish(data, metadata, transient, update)

    def clear_output(self, wait=False):
        _cob.clear_output(bool(wait))

    def register_hook(self, hook):
        """ipykernel's way to intercept displays; a hook that returns None swallows the display."""
        self.__dict__.setdefault("hooks", []).append(hook)

    def unregister_hook(self, hook):
        hooks = self.__dict__.get("hooks", [])
        found = hook in hooks
        if found:
            hooks.remove(hook)
        return found


class ResultHook(DisplayHook):
    """``sys.displayhook`` while the shell exists."""

    def __call__(self, result=None):
        engine.displayhook(result)


class Compiler(CachingCompiler):
    """Cells that magics compile are cells for tracebacks, too."""

    def cache(self, transformed_code, number=0, raw_code=None):
        name = super().cache(transformed_code, number, raw_code=raw_code)
        cells.keep(name, transformed_code, number)
        return name


class ZMQInteractiveShell(InteractiveShell):
    """IPython's shell without a terminal, a database and a thread."""

    displayhook_class = Type(ResultHook)
    display_pub_class = Type(Publisher)
    compiler_class = Type(Compiler)
    kernel = Any()
    parent_header = Any()

    def init_create_namespaces(self, user_module=None, user_ns=None):
        super().init_create_namespaces(sys.modules["__main__"], engine.namespace)

    def init_history(self):
        super().init_history()
        manager = self.history_manager
        manager.input_hist_parsed[:] = history.inputs
        manager.input_hist_raw[:] = history.inputs
        manager.output_hist.update(history.outputs)
        # Both sides go on with the same objects: In and Out of the user are IPython's.
        history.adopt(manager.input_hist_parsed, manager.input_hist_raw, manager.output_hist, manager.dir_hist)

    def init_hooks(self):
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(payloadpage.page), 99)

    def init_display_formatter(self):
        super().init_display_formatter()
        self.display_formatter.active_types = self.display_formatter.format_types

    def init_environment(self):
        """engine.start has set the environment already."""

    def init_readline(self):
        pass

    def enable_gui(self, gui=None):
        """No window system has an event loop here; figures are inline."""

    def system(self, cmd):
        """``!command``: the child writes into the same pipes, so order is kept for free."""
        import subprocess

        cmd = self.var_expand(cmd, depth=1)
        captured = sys.stdout is not sys.__stdout__
        child = subprocess.Popen(
            cmd, shell=True, executable=os.environ.get("SHELL"),
            stdout=subprocess.PIPE if captured else None, stderr=subprocess.STDOUT if captured else None,
        )
        with child:
            if captured:  # %%capture, contextlib.redirect_stdout, ...
                for line in child.stdout:
                    sys.stdout.write(line.decode("utf-8", "replace"))
        self.user_ns["_exit_code"] = child.returncode

    system_raw = system_piped = system

    def ask_exit(self):
        engine.ask_exit(bool(getattr(self, "keepkernel_on_exit", False)))

    def set_next_input(self, s, replace=False):
        self.payload_manager.write_payload({"source": "set_next_input", "text": s, "replace": replace})

    def showtraceback(self, exc_tuple=None, filename=None, tb_offset=None, exception_only=False,
                      running_compiled_code=False):
        try:
            kind, error, tb = self._get_exc_info(exc_tuple)
        except ValueError:
            sys.stderr.write("No traceback available to show.\n")
            return
        lines = errors.render(error) if not exception_only else [errors.last_line(error)]
        self._showtraceback(kind, error, lines)
        if self.call_pdb:
            self.debugger(force=True)

    def showsyntaxerror(self, filename=None, running_compiled_code=False):
        self.showtraceback()

    def _showtraceback(self, etype, evalue, stb):
        if engine.formatting:  # a representation failed, not the cell
            sys.stderr.write(errors.clean("\n".join(stb)) + "\n")
        else:
            errors.send(etype.__name__, errors.text(evalue), stb)

    def transformers_changed(self):
        """Whether the user added input transformers, which must then see plain Python as well."""
        manager = self.input_transformer_manager
        return self._transformers != (
            manager.cleanup_transforms, manager.line_transforms, manager.token_transformers,
            self.input_transformers_post,
        )

    def remember_transformers(self):
        manager = self.input_transformer_manager
        self._transformers = (
            list(manager.cleanup_transforms), list(manager.line_transforms), list(manager.token_transformers),
            list(self.input_transformers_post),
        )


def create():
    """Make the shell; afterwards IPython's own singleton is this object."""
    from cob import ipython

    config = profile.config()
    config.HistoryManager.enabled = False
    config.IPKernelApp = Config()  # libraries look for the key to recognise a notebook
    ipython.release(InteractiveShell)
    results = {name: value for name, value in engine.namespace.items() if name in ("_", "__", "___")}
    shell = ZMQInteractiveShell.instance(config=config, kernel=None, exiter=ZMQExitAutocall())
    shell.kernel = kernel.Kernel(shell)
    shell.execution_count = engine.count
    # The engine's exit works as a bare name without IPython's rewriting of the line.
    shell.user_ns.update(exit=engine.leave, quit=engine.leave)
    shell.user_ns.update(results)  # its display hook begins with empty ones
    for name, function in timeline.magics():
        shell.register_magic_function(function, "line", name)
    shell.remember_transformers()
    # Entered for good: nested run_cell calls of magics must not swap the hooks.
    shell.display_trap.__enter__()
    shell.builtin_trap.__enter__()
    return shell
