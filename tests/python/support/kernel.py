"""A running kernel: started, interrupted and ended by jupyter_client, as front ends do it."""
import os
from pathlib import Path

import psutil
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from support import target
from support.client import Client


def spec_manager(kernels):
    """Finds the kernelspecs of one folder only."""
    return KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)


class Kernel:
    """A kernel process and the first client that talks to it."""

    def __init__(self, kernels, name, cwd, **options):
        self.manager = KernelManager(kernel_name=name, kernel_spec_manager=spec_manager(kernels), **options)
        self.manager.connection_file = os.path.join(cwd, f"kernel-{os.urandom(6).hex()}.json")
        self.cwd = Path(cwd)
        self.name = name
        self.clients = []
        try:
            self.manager.start_kernel(cwd=str(cwd), env=_environment())
            self.client = self.connect()
            self.info = self.client.ask("kernel_info_request")
        except BaseException:
            self.close()
            raise

    # What most tests need is said to the first client.

    def run(self, code, **options):
        return self.client.run(code, **options)

    def execute(self, code, **options):
        return self.client.execute(code, **options)

    def ask(self, msg_type, content=None, channel="shell"):
        return self.client.ask(msg_type, content, channel)

    def value(self, expression):
        """The value of a Python literal, computed by the kernel."""
        from ast import literal_eval
        answer = self.run("", silent=True, user_expressions={"value": f"{expression}"}).reply["user_expressions"]["value"]
        assert answer["status"] == "ok", answer
        return literal_eval(answer["data"]["text/plain"])

    # Life --------------------------------------------------------------------

    @property
    def connection(self):
        info = self.manager.get_connection_info()
        return {**info, "key": info["key"].decode()}

    @property
    def pid(self):
        return self.manager.provisioner.pid

    def processes(self):
        """The kernel process and its descendants."""
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def worker(self):
        """The process that runs the user's code."""
        return psutil.Process(self.value("__import__('os').getpid()"))

    def connect(self):
        """One more front end, ready to see everything."""
        client = Client(self.connection)
        self.clients.append(client)
        if target.IS_COB or len(self.clients) == 1:
            client.welcome()
        else:
            _nudge(client)
        return client

    def reconnect(self):
        """A first client for the process that replaced the one before."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        self.client = self.connect()
        return self.client

    def interrupt(self):
        """As the stop button does: by signal or message, whatever the kernelspec says."""
        self.manager.interrupt_kernel()

    def interrupt_by_message(self):
        return self.client.send("control", "interrupt_request")

    def wait_exit(self, patience=30):
        """Waits for the kernel process to end; returns its exit code."""
        return self.manager.provisioner.process.wait(patience)

    def close(self):
        for client in self.clients:
            client.close()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def is_usable(self):
        return self.manager.has_kernel and self.manager.is_alive()


def _nudge(client):
    """For a kernel that welcomes only its first subscriber: ask until iopub answers."""
    from support.client import TimedOut
    for _ in range(50):
        request = client.send("shell", "kernel_info_request")
        client.partial.add(request)
        try:
            return client.until(lambda: client.is_idle(request) and client.reply_to(request), patience=0.2)
        except TimedOut:
            continue
    raise TimedOut("iopub never answered")


def _environment():
    """Ours, without what pytest adds: ipykernel behaves differently when it sees that."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COB_"))}
