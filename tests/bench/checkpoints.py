"""Stage "checkpoints" of the targets: keeping a session, going back, branching off and sleeping, as an agent sees it;
`cargo xtask bench -- --stage checkpoints` runs it.

Every round starts a server and asks it with the lean client of serve.py. What is compared is measured in turn, in the
same session; ratios are of one round; what is shown are medians. By hand means: one cell that dumps the same variables.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from serve import Server, p99, timed

#: So many MB of numbers, every page of them touched.
ARRAY = "import numpy\nbig = numpy.ones({megabytes} * 125_000)"
#: What a session holds after some work: arrays, most of it; texts and records; functions and a class of its own.
MIXED = """
import numpy
arrays = [numpy.random.default_rng(n).random({megabytes} * 15_000) for n in range(8)]
names = [f"customer {{n}}" for n in range({megabytes} * 1000)]
orders = {{n: (name, n % 7, n / 3) for n, name in enumerate(names[::10])}}
class Model:
    def __init__(self): self.weights = arrays[0]
model = Model()
def total(): return sum(array.sum() for array in arrays)
counter = 0
"""
CHANGE = "arrays[0][5] += 1; names.append('one more'); counter += 1"
BY_HAND = """
import {module}
len({module}.dumps(dict(arrays=arrays, names=names, orders=orders, model=model, total=total, counter=counter)))
"""
#: It does not even hear the interrupt.
STUCK = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nprint(1, flush=True)\nwhile True: pass"
DIES = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cob", required=True)
    p.add_argument("--python", required=True, help="an interpreter that has numpy, cloudpickle and dill")
    p.add_argument("--imports", default="numpy", help="what the pool imports in advance")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--megabytes", type=int, default=400, help="in a session whose checkpoints are in memory")
    p.add_argument("--durable", type=int, default=300, help="megabytes in a session whose checkpoints are in the store")
    p.add_argument("--takes", type=int, default=30)
    p.add_argument("--saves", type=int, default=4)
    p.add_argument("--rtt", type=int, default=200)
    p.add_argument("--branches", type=int, default=20)
    p.add_argument("--kept", type=int, default=50, help="checkpoints at once, for their memory")
    p.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES), help="some of it")
    p.add_argument("--json", type=Path)
    return p.parse_args()


class Bench:
    """One server, and what was found with it."""

    def __init__(self, options):
        self.options, self.server, self.found = options, Server(options), {}
        self.agent = self.server.agent

    def open(self, **fields):
        return self.agent.ask("session_open", {"language": "python", **fields})["session_id"]

    def ask(self, session, msg_type, **fields):
        return self.agent.ask(msg_type, {"session_id": session, **fields})

    def take(self, session, **fields):
        return self.ask(session, "checkpoint", **fields)["checkpoint"]

    def drop(self, checkpoint):
        self.agent.ask("checkpoint_delete", {"checkpoint": checkpoint["checkpoint"]})

    def end(self, *sessions):
        for session in sessions:
            self.ask(session, "session_close")

    def behind(self, session, msg_type, **fields):
        """Milliseconds until `1+1` is answered that was sent right behind this request; and the request's reply."""
        asked = self.agent.send(msg_type, {"session_id": session, **fields})
        began = time.perf_counter()
        waits = self.agent.send("execute_request", {"session_id": session, "code": "1+1"})
        took, reply = None, None
        for kind, parent, content in self.agent.messages():
            if kind.endswith("_reply") and content["status"] != "ok":
                raise SystemExit(f"{kind}: {content}")
            if parent == waits and kind == "execute_reply":
                took = (time.perf_counter() - began) * 1e3
            elif parent == asked and kind.endswith("_reply"):
                reply = content
            if took is not None and reply is not None:
                return took, reply

    def fails(self, session, code, interrupts):
        """Milliseconds from the end of the code, or from the interrupt, to the reply; and the content of the reply."""
        run = self.agent.send("execute_request", {"session_id": session, "code": code, "credit": 9})
        began = time.perf_counter()
        for kind, parent, content in self.agent.messages():
            if interrupts and parent == run and kind == "event" and content["kind"] == "stream":
                began = time.perf_counter()
                self.agent.send("interrupt", {"session_id": session})
            elif parent == run and kind == "execute_reply":
                return (time.perf_counter() - began) * 1e3, content

    def memory(self):
        """KiB of the server and of all its interpreters, shared pages counted in parts."""
        total = 0
        for process in Path("/proc").glob("[0-9]*"):
            try:
                program = (process / "cmdline").read_bytes().partition(b"\0")[0].decode()
                if int(process.name) == self.server.process.pid or program == self.options.python:
                    total += pss(process)
            except OSError:
                # It has ended.
                continue
        return total


def pss(process):
    lines = (process / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def median(values):
    return statistics.median(values)


def in_memory(bench):
    """Taking and going back, with so much in the session that copying it would show."""
    options, found = bench.options, bench.found
    size = f"{options.megabytes} MB"
    session = bench.open()
    bench.server.run(session, ARRAY.format(megabytes=options.megabytes))
    run, takes, pauses, restores, answers = [], [], [], [], []
    # The first one after so much was allocated is none of them.
    bench.drop(bench.take(session))
    for _ in range(options.takes):
        run.append(timed(lambda: bench.server.run(session)))
        began = time.perf_counter()
        checkpoint = bench.take(session)
        takes.append((time.perf_counter() - began) * 1e3)
        bench.server.run(session, "big[0] += 1")
        began = time.perf_counter()
        bench.ask(session, "restore", checkpoint=checkpoint["checkpoint"])
        restores.append((time.perf_counter() - began) * 1e3)
        bench.server.run(session)
        answers.append((time.perf_counter() - began) * 1e3)
        bench.drop(checkpoint)
        took, reply = bench.behind(session, "checkpoint")
        pauses.append(took)
        bench.drop(reply["checkpoint"])
    found[f"1+1 with {size}, ms"] = median(run)
    found[f"take with {size}, ms"] = median(takes)
    found[f"take with {size}, p99, ms"] = p99(takes)
    found[f"take with {size}: `1+1` right behind it waits, ms"] = median(pauses) - median(run)
    found[f"restore with {size}, ms"] = median(restores)
    found[f"restore with {size}, p99, ms"] = p99(restores)
    found[f"restore with {size}, to the answer of `1+1`, ms"] = median(answers)
    forking(bench, session, f" with {size}")
    # Last: pages that were copied are small ones, and forks are slower from then on.
    writing(bench, session, size)
    bench.end(session)
    empty = bench.open()
    bench.server.run(empty)
    forking(bench, empty, "")
    bench.end(empty)


def writing(bench, session, size):
    """What a checkpoint costs afterwards: pages that it shares are copied when they are written."""
    alone, shared = [], []
    for _ in range(3):
        alone.append(timed(lambda: bench.server.run(session, "big += 1")))
        checkpoint = bench.take(session)
        shared.append(timed(lambda: bench.server.run(session, "big += 1")))
        bench.drop(checkpoint)
    bench.found[f"writing all {size}: behind a checkpoint / without"] = median(shared) / median(alone)


def forking(bench, session, size):
    """Branches, and when the first and the last of them have answered."""
    count = bench.options.branches
    began = time.perf_counter()
    branches = bench.ask(session, "fork", count=count)["sessions"]
    forked = (time.perf_counter() - began) * 1e3
    runs = {bench.agent.send("execute_request", {"session_id": branch, "code": "1+1"}) for branch in branches}
    ends = []
    for kind, parent, content in bench.agent.messages():
        if parent in runs and kind == "execute_reply":
            if content["status"] != "ok":
                raise SystemExit(f"a branch: {content}")
            ends.append((time.perf_counter() - began) * 1e3)
            if len(ends) == count:
                break
    bench.found[f"fork of {count}{size}, ms"] = forked
    bench.found[f"fork of {count}{size}, to the first answer, ms"] = ends[0]
    bench.found[f"fork of {count}{size}, to the answers of all, ms"] = ends[-1]
    bench.end(*branches)


def durable(bench):
    """Into the store, against a cell that dumps the same."""
    options, found = bench.options, bench.found
    size = f"{options.durable} MB"
    session = bench.open()
    bench.server.run(session, MIXED.format(megabytes=options.durable))
    first = bench.take(session, durable=True)
    found[f"first durable checkpoint of {size}: bytes, MB"] = first["bytes"] / 1e6
    run, pauses, saves, share = [], [], [], []
    # Plain pickle writes the mere names of functions and classes: it has less to do.
    hand = {module: [] for module in ("pickle", "cloudpickle", "dill")}
    for _ in range(options.saves):
        bench.server.run(session, CHANGE)
        run.append(median(timed(lambda: bench.server.run(session)) for _ in range(5)))
        began = time.perf_counter()
        took, reply = bench.behind(session, "checkpoint", durable=True)
        saves.append((time.perf_counter() - began) * 1e3)
        pauses.append(took)
        taken = reply["checkpoint"]
        share.append(taken["new_bytes"] / taken["bytes"])
        if taken.get("missing"):
            raise SystemExit(f"not everything was saved: {taken['missing']}")
        for module, times in hand.items():
            times.append(timed(lambda: bench.server.run(session, BY_HAND.format(module=module))))
    found[f"durable checkpoint of {size}: `1+1` right behind it waits, ms"] = median(pauses) - median(run)
    found[f"durable checkpoint of {size}, until it is in the store, ms"] = median(saves)
    found[f"… its new bytes after a small change / all"] = median(share)
    for module, times in hand.items():
        found[f"the same by {module}.dumps in a cell, ms"] = median(times)
        found[f"waiting for a durable checkpoint / {module}.dumps"] = (median(pauses) - median(run)) / median(times)
    hibernating(bench, session, size)
    bench.end(session)


def hibernating(bench, session, size):
    asleep, awake = [], []
    for _ in range(bench.options.saves):
        asleep.append(timed(lambda: bench.ask(session, "hibernate")))
        awake.append(timed(lambda: bench.server.run(session)))
    bench.found[f"hibernate {size}, ms"] = median(asleep)
    bench.found[f"wake with {size}, to the answer of `1+1`, ms"] = median(awake)


def automatic(bench):
    """What `auto` costs somebody who asks without a pause, and somebody who looks at the result first."""
    found = bench.found
    sessions = {mode: bench.open(checkpoints=mode) for mode in ("manual", "auto")}
    for label, pause in (("without a pause", 0.0), ("with 20 ms between", 0.02)):
        times = {mode: [] for mode in sessions}
        for _ in range(bench.options.rtt):
            for mode, session in sessions.items():
                times[mode].append(timed(lambda: bench.server.run(session)))
                time.sleep(pause)
        for mode, taken in times.items():
            found[f"1+1, {mode}, {label}, ms"] = median(taken)
        found[f"1+1, auto / manual, {label}"] = median(times["auto"]) / median(times["manual"])
    bench.end(*sessions.values())


def recovering(bench):
    """From the end of a worker to the reply of what ran in it, with variables that are there again."""
    grace = 100
    for mode, state in (("manual", "without checkpoints"), ("auto", "restored")):
        session = bench.open(checkpoints=mode, interrupt_grace_ms=grace)
        bench.server.run(session, "x = 5")
        died, stuck = [], []
        for code, interrupts, times in [(DIES, False, died), (STUCK, True, stuck)] * 5:
            bench.server.run(session, "x = 5")
            took, reply = bench.fails(session, code, interrupts)
            if reply["status"] != "error":
                raise SystemExit(f"it went well: {reply}")
            times.append(took)
            if mode == "auto":
                # It is there, or this fails.
                bench.server.run(session, "assert x == 5")
        bench.found[f"worker killed → reply, {state}, ms"] = median(died)
        bench.found[f"stuck code, interrupt → reply, {state}, less the grace of {grace} ms"] = median(stuck) - grace
        bench.end(session)


def holding(bench):
    """Many checkpoints at once, of a session that changes little between them."""
    options = bench.options
    session = bench.open()
    bench.server.run(session, ARRAY.format(megabytes=options.megabytes) + "\nitems = []")
    before = bench.memory()
    for n in range(options.kept):
        bench.server.run(session, f"items.append({n}); big[{n}] = 2")
        bench.take(session)
    size = f"{options.kept} checkpoints of {options.megabytes} MB"
    bench.found[f"memory of {size}, each, KiB"] = (bench.memory() - before) / options.kept
    bench.end(session)


STAGES = {each.__name__: each for each in (automatic, in_memory, recovering, durable, holding)}


def measure(options):
    bench = Bench(options)
    bench.server.warm()
    for stage in options.only:
        STAGES[stage](bench)
    bench.server.close()
    return bench.found


def main():
    options = arguments()
    rounds = [measure(options) for _ in range(options.rounds)]
    medians = {row: median([found[row] for found in rounds]) for row in rounds[0]}
    width = max(len(row) for row in medians)
    for row, value in medians.items():
        print(f"{row:{width}}  {value:.4g}")
    if options.json:
        options.json.write_text(json.dumps({"medians": medians, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
