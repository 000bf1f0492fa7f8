"""Stage "pool" of the targets, seen from a front end; `cargo xtask bench -- --stage pool` runs it.

Every round measures each kernel in turn, so that ratios hold on a noisy machine. Kernels, sockets and clocks are
those of kernel_bench.py. The servers of the warm kernels listen in folders of their own and end with this program.
"""

import argparse
import copy
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORT = "import numpy, pandas"
WHO = "import os; print(os.getpid())"


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kernel-bench", required=True, type=Path, help="the folder of kernel_bench.py")
    p.add_argument("--cob", required=True)
    p.add_argument("--python", required=True, help="an interpreter that has numpy and pandas")
    p.add_argument("--ipykernel", required=True, help="an interpreter that has ipykernel, of the same version")
    p.add_argument("--rounds", type=int, default=11)
    p.add_argument("--fleet", type=int, default=10)
    p.add_argument("--fleet-rounds", type=int, default=5)
    p.add_argument("--rtt", type=int, default=100)
    p.add_argument("--json", type=Path)
    return p.parse_args()


class Server:
    """A `cob serve` and the folder it listens in."""

    def __init__(self, cob, python, spares):
        self.cob, self.spares = cob, spares
        self.folder = tempfile.mkdtemp(prefix="cob-bench-")
        self.env = os.environ | {"COB_RUNTIME_DIR": self.folder}
        argv = [cob, "serve", "--python", python, "--import", "numpy,pandas", "--spares", str(spares)]
        self.process = subprocess.Popen(argv, env=self.env, stdout=subprocess.DEVNULL)

    def info(self):
        done = subprocess.run([self.cob, "info", "--json"], env=self.env, capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait(self):
        """Until every spare is there again."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            info = self.info()
            if info and info["environments"] and info["environments"][0]["warm"] >= self.spares:
                return
            time.sleep(0.05)
        raise SystemExit(f"the server never became warm: {self.info()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def kernelspecs(folder, args, servers):
    """Writes a kernelspec for each kernel; their folders by name, ipykernel first: it is the base of the ratios."""
    packages = subprocess.run([args.ipykernel, "-c", "import ipykernel, pathlib; "
                               "print(pathlib.Path(ipykernel.__file__).parents[1])"],
                              capture_output=True, text=True, check=True).stdout.strip()
    cob = [args.cob, "kernel", "-f", "{connection_file}", "--python", args.python]
    specs = {
        "ipykernel": ([args.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], {"PYTHONPATH": packages}),
        "cold": ([*cob, "--cold"], {}),
        **{name: (cob, {"COB_RUNTIME_DIR": server.folder}) for name, server in servers.items()},
    }
    dirs = {}
    for name, (argv, env) in specs.items():
        dirs[name] = folder / name
        dirs[name].mkdir()
        spec = {"argv": argv, "env": env, "display_name": name, "language": "python", "interrupt_mode": "message"}
        (dirs[name] / "kernel.json").write_text(json.dumps(spec))
    dirs["null"] = args.kernel_bench / "null_kernel"
    return dirs


def rollup(pid):
    """(proportional, private) memory of a process in MB."""
    of = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split(":")
        of[key] = int(value.split()[0]) * 1024 / 1e6
    return of["Pss"], of["Private_Clean"] + of["Private_Dirty"]


class Stage:
    def __init__(self, args, bench, opts, servers):
        self.args, self.bench, self.opts, self.servers = args, bench, opts, servers
        self.rows = {}  # title -> name -> one median per round

    def note(self, title, name, value):
        self.rows.setdefault(title, {}).setdefault(name, []).append(value)

    def settle(self, name):
        if name in self.servers:
            self.servers[name].wait()

    def python(self):
        t0 = time.perf_counter()
        subprocess.run([self.args.python, "-c", "pass"], check=True)
        self.note("`python -c pass`, ms", "python", (time.perf_counter() - t0) * 1e3)

    def start(self, name, title, first, measure=None):
        opts = copy.copy(self.opts)
        opts.snippets = self.opts.snippets | {"one": first}
        self.settle(name)
        kernel = self.bench.Kernel(name, opts)
        try:
            self.note(title, name, kernel.start()["cold.exec"][0])
            if measure:
                measure(kernel)
        finally:
            kernel.stop()

    def round_trips(self, kernel):
        runs = [kernel.execute("1+1") for _ in range(self.args.rtt)]
        times = sorted(run.elapsed_ms() for run in runs)
        self.note("`1+1` to reply and idle, median, ms", kernel.name, statistics.median(times))
        self.note("... 99 of 100, ms", kernel.name, times[int(len(times) * 0.99) - 1])

    def fleet(self, name):
        self.settle(name)
        self.opts.fleet = self.args.fleet
        try:
            measured = self.bench.fleet(name, self.opts)
        except self.bench.Failed as error:
            # A failure is a result, never a fast time. Ports that jupyter_client chose may be taken meanwhile.
            return print(f"{name}, {self.args.fleet} at once: FAILED, {error}")
        self.note(f"{self.args.fleet} kernels at once, last ready, ms", name, measured["fleet.ready"][0])

    def memory(self, name):
        """Of idle sessions that have imported numpy and pandas, several at a time."""
        kernels = []
        try:
            for _ in range(self.args.fleet):
                self.settle(name)
                kernels.append(self.bench.Kernel(name, self.opts))
                kernels[-1].start()
            for kernel in kernels:
                kernel.execute(IMPORT)
                worker = int(kernel.stdout(kernel.execute(WHO)))
                kernel.worker = worker
            time.sleep(1)
            for kernel in kernels:
                of = {kernel.worker: "interpreter"} | {pid: "kernel process" for pid in kernel.roots()
                                                       if pid != kernel.worker}
                for pid, what in of.items():
                    shared, private = rollup(pid)
                    self.note(f"memory of an idle session: {what}, proportional, MB", name, shared)
                    self.note(f"memory of an idle session: {what}, private, MB", name, private)
        finally:
            for kernel in kernels:
                kernel.stop()

    def run(self, names):
        say = lambda text: print(text, file=sys.stderr, flush=True)
        python = [name for name in names if name != "null"]
        turn = lambda names, number: names[number % len(names):] + names[:number % len(names)]
        for number in range(self.args.rounds):
            say(f"start, round {number + 1} of {self.args.rounds}")
            self.python()
            for name in turn(names, number):
                self.start(name, "spawn to first execute idle, ms", "1+1", self.round_trips)
            for name in turn(python, number):
                self.start(name, f"spawn to `{IMPORT}` done, ms", IMPORT)
        for number in range(self.args.fleet_rounds):
            say(f"fleet, round {number + 1} of {self.args.fleet_rounds}")
            for name in turn(names, number):
                self.fleet(name)
        for name in python:
            say(f"memory: {name}")
            self.memory(name)

    def show(self, names):
        print(f"{'median, and the median over rounds of the ratio to ipykernel':<62}"
              + "".join(f"{name:>18}" for name in ["python", *names]))
        for title, by_name in self.rows.items():
            base = by_name.get("ipykernel")
            cells = []
            for name in ["python", *names]:
                values = by_name.get(name)
                if not values:
                    cells.append(f"{'-':>18}")
                    continue
                cell = f"{statistics.median(values):.2f}"
                if base:
                    cell += f" ({statistics.median(value / its for value, its in zip(values, base)):.3f})"
                cells.append(f"{cell:>18}")
            print(f"{title:<62}" + "".join(cells))


def main():
    args = arguments()
    sys.path.insert(0, str(args.kernel_bench))
    import kernel_bench as bench

    servers = {"warm": Server(args.cob, args.python, 2), "warm-10": Server(args.cob, args.python, args.fleet)}
    try:
        with tempfile.TemporaryDirectory() as folder:
            dirs = kernelspecs(Path(folder), args, servers)
            names = list(dirs)
            opts = bench.options([word for name in names for word in ("--kernel", f"{name}={dirs[name]}")])
            stage = Stage(args, bench, opts, servers)
            stage.run(names)
        stage.show(names)
        for name, server in servers.items():
            info = server.info()
            print(f"server of {name}: {info['counters']}, latency {info['latency']}")
        if args.json:
            args.json.write_text(json.dumps(stage.rows))
    finally:
        for server in servers.values():
            server.stop()


if __name__ == "__main__":
    main()
