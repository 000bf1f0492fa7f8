"""Stage "bridge" of the targets: what records cost, seen from a front end; `cargo xtask bench -- --stage bridge` runs
it after the examples of the bridge itself.

Every round measures the same kernel without a store, with one, with one whose code would outlive it, and with one
that waits for the disk. Ratios are of one round; what is shown are medians.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

KINDS = {
    "memory": ["--ephemeral"],
    "store": [],
    "store, grace": ["--grace", "30"],
    "store, power": ["--durability", "power"],
}
TICKS = "import time\nfor tick in range(1000):\n    print(time.time()); time.sleep(0.01)"


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cob", required=True)
    p.add_argument("--python", required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--rtt", type=int, default=300)
    p.add_argument("--pipelined", type=int, default=2000)
    p.add_argument("--json", type=Path)
    return p.parse_args()


class Kernel:
    """A `cob kernel` with folders of its own, and its client."""

    def __init__(self, options, kind):
        self.folder = tempfile.TemporaryDirectory(prefix="cob-bench-")
        self.path, _ = write_connection_file(os.path.join(self.folder.name, "kernel.json"))
        self.store = os.path.join(self.folder.name, "store")
        extra = KINDS[kind] if kind == "memory" else ["--store", self.store, *KINDS[kind]]
        self.argv = [options.cob, "kernel", "-f", self.path, "--cold", "--python", options.python, *extra]
        self.env = os.environ | {"COB_RUNTIME_DIR": os.path.join(self.folder.name, "run")}
        began = time.perf_counter()
        self.start()
        self.client = BlockingKernelClient(connection_file=self.path)
        self.client.load_connection_file()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=30)
        self.started_in = time.perf_counter() - began

    def start(self):
        self.process = subprocess.Popen(self.argv, env=self.env)

    def run(self, code):
        """Until the reply and idle have come; seconds."""
        began = time.perf_counter()
        message = self.client.execute(code)
        self.idle(message)
        self.client.get_shell_msg(timeout=120)
        return time.perf_counter() - began

    def idle(self, message):
        while True:
            seen = self.client.get_iopub_msg(timeout=120)
            is_ours = seen["parent_header"].get("msg_id") == message
            if is_ours and seen["content"].get("execution_state") == "idle":
                return

    def pipelined(self, count):
        """Replies per second."""
        began = time.perf_counter()
        messages = [self.client.execute("pass") for _ in range(count)]
        for _ in messages:
            self.client.get_shell_msg(timeout=120)
        rate = count / (time.perf_counter() - began)
        self.idle(messages[-1])
        return rate

    def killed_while_running(self):
        """From the start of the next server to the first text that its client sees; milliseconds."""
        message = self.client.execute(TICKS)
        self.stream(message)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        while True:
            try:
                self.client.get_iopub_msg(timeout=0.2)
            except Exception:  # noqa: BLE001 - queue.Empty: what was still on its way has come
                break
        began = time.perf_counter()
        self.start()
        self.stream(message)
        seen = time.perf_counter() - began
        self.client.control_channel.send(self.client.session.msg("interrupt_request", {}))
        self.client.get_shell_msg(timeout=60)
        return seen * 1e3

    def stream(self, message):
        while True:
            seen = self.client.get_iopub_msg(timeout=60)
            if seen["msg_type"] == "stream" and seen["parent_header"].get("msg_id") == message:
                return

    def close(self):
        self.client.shutdown()
        self.process.wait(30)
        self.client.stop_channels()
        self.folder.cleanup()


def measure(options, kind):
    kernel = Kernel(options, kind)
    times = sorted(kernel.run("1+1") for _ in range(options.rtt))
    found = {
        "start, ms": kernel.started_in * 1e3,
        "1+1, ms": statistics.median(times) * 1e3,
        "1+1 p99, ms": times[int(len(times) * 0.99)] * 1e3,
        "pipelined, 1/s": kernel.pipelined(options.pipelined),
        "64 MiB, MB/s": 67.1 / kernel.run("import sys\nfor _ in range(64): sys.stdout.write('x' * 1048576)"),
        "200,000 lines, s": kernel.run("for i in range(200000): print('line', i)"),
        "200 displays of 100 KB, s": kernel.run("for i in range(200): display('x' * 100000)"),
    }
    if kind == "store":
        size = sum(file.stat().st_size for file in Path(kernel.store).rglob("cob.db*"))
        found["store, MB"] = size / 1e6
    if kind == "store, grace":
        found["killed, next text, ms"] = kernel.killed_while_running()
    kernel.close()
    return found


def main():
    options = arguments()
    rounds = [{kind: measure(options, kind) for kind in KINDS} for _ in range(options.rounds)]
    rows = dict.fromkeys(row for found in rounds for kind in found.values() for row in kind)
    print(f"{'':28}" + "".join(f"{kind:>22}" for kind in KINDS))
    table = {}
    for row in rows:
        line = f"{row:28}"
        for kind in KINDS:
            values = [found[kind][row] for found in rounds if row in found[kind]]
            if not values:
                line += f"{'':>22}"
                continue
            value = statistics.median(values)
            bases = [found["memory"].get(row) for found in rounds]
            ratios = [v / base for v, base in zip(values, bases) if base]
            ratio = f" ({statistics.median(ratios):.2f})" if ratios and kind != "memory" else ""
            table[f"{row} | {kind}"] = value
            line += f"{f'{value:.3g}{ratio}':>22}"
        print(line)
    if options.json:
        options.json.write_text(json.dumps({"medians": table, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
