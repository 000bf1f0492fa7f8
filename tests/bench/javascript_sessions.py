"""JavaScript sessions of a server, as an agent with the lean client of serve.py sees them; javascript.py runs it.

How long a warm one takes to its first answer, what checkpoints cost with little and with much in the heap, what an idle
worker weighs, and that a timer far away costs nothing while it waits. Medians; each round has a server of its own.
"""

import statistics
import time
from pathlib import Path

from serve import Server, p99, timed

SPARES = 4
#: So many MB of objects and strings, as programs have them; a buffer would be one piece.
HEAP = "var rows = []; for (let i = 0; i < {megabytes} * 5000; i++) rows.push({{ id: i, name: 'row ' + i, at: i / 3 }})"
CHANGE = "rows[0] = { id: -1 }"
HOUR = "setTimeout(() => console.log('late'), 3_600_000)"
IDLE_S = 5


class JavaScriptServer(Server):
    """A `cob serve` that keeps JavaScript warm, and no Python."""

    def pool(self):
        return ["--javascript", str(SPARES), "--session-spares", "0"]

    def start(self):
        return self.open("javascript")

    def end(self, *sessions):
        for session in sessions:
            self.agent.ask("session_close", {"session_id": session})

    def workers(self):
        """Its interpreters, started and forked, as folders of /proc."""
        parents, found = {}, []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parents[process] = Path("/proc", (process / "stat").read_text().rpartition(")")[2].split()[1])
                if b"\0worker\0javascript\0" in (process / "cmdline").read_bytes():
                    found.append(process)
            except OSError:
                continue
        server = Path("/proc", str(self.process.pid))
        return {process for process in found if server in lineage(parents, process)}


def lineage(parents, process):
    while process in parents:
        process = parents[process]
        yield process


def memory(process):
    """Proportional and private memory, in MB."""
    rows = dict(line.split(":") for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    kib = {name: int(value.split()[0]) for name, value in rows.items()}
    return kib["Pss"] / 1024, (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024


def ticks(process):
    return sum(int(field) for field in (process / "stat").read_text().rpartition(")")[2].split()[11:13])


def opening(server, options):
    opened, first = [], []
    for _ in range(options.opens):
        server.warm()
        began = time.perf_counter()
        session = server.start()
        opened.append((time.perf_counter() - began) * 1e3)
        server.run(session)
        first.append((time.perf_counter() - began) * 1e3)
        server.end(session)
    return {
        "session_open, ms": statistics.median(opened),
        "session_open to first reply, warm, ms": statistics.median(first),
        "session_open to first reply, warm, p99, ms": p99(first),
    }


def idling(server, options):
    """What is there for sessions that have run a cell and wait for a timer, and what they do meanwhile."""
    server.warm()
    sessions = [server.start() for _ in range(options.idle)]
    for session in sessions:
        server.run(session)
        server.run(session, HOUR)
    server.warm()
    waiting = server.workers()
    # Spares and what they are forked from are among them; the median is that of a session.
    weights = [memory(process) for process in waiting]
    spent = {process: ticks(process) for process in waiting}
    time.sleep(IDLE_S)
    spent = [ticks(process) - spent[process] for process in waiting]
    server.end(*sessions)
    return {
        f"worker among {options.idle} sessions that wait, proportional, MB": statistics.median(w[0] for w in weights),
        f"worker among {options.idle} sessions that wait, private, MB": statistics.median(w[1] for w in weights),
        f"ticks of the processor in {IDLE_S} s, all of them together": sum(spent),
    }


def checkpoints(server, options, megabytes):
    session = server.start()
    server.run(session, HEAP.format(megabytes=megabytes))
    fields = {"session_id": session}
    runs, takes, restores, answers = [], [], [], []
    for number in range(options.takes + 1):
        run = timed(lambda: server.run(session))
        began = time.perf_counter()
        name = server.agent.ask("checkpoint", fields)["checkpoint"]["checkpoint"]
        take = (time.perf_counter() - began) * 1e3
        server.run(session, CHANGE)
        began = time.perf_counter()
        server.agent.ask("restore", {**fields, "checkpoint": name})
        restore = (time.perf_counter() - began) * 1e3
        server.run(session)
        answer = (time.perf_counter() - began) * 1e3
        server.agent.ask("checkpoint_delete", {"checkpoint": name})
        if number == 0:
            continue  # the first one after so much was allocated is none of them
        for times, took in (runs, run), (takes, take), (restores, restore), (answers, answer):
            times.append(took)
    server.end(session)
    size = f"{megabytes} MB"
    return {
        f"1+1 with {size}, ms": statistics.median(runs),
        f"take with {size}, ms": statistics.median(takes),
        f"take with {size}, p99, ms": p99(takes),
        f"restore with {size}, ms": statistics.median(restores),
        f"restore with {size}, p99, ms": p99(restores),
        f"restore with {size}, to the answer of `1+1`, ms": statistics.median(answers),
    }


def measure(options):
    """Medians of all rounds, by row."""
    rounds = []
    for _ in range(options.session_rounds):
        server = JavaScriptServer(options)
        found = opening(server, options) | idling(server, options)
        for megabytes in options.heaps:
            found |= checkpoints(server, options, megabytes)
        server.close()
        rounds.append(found)
    return {row: statistics.median(found[row] for found in rounds) for row in rounds[0]}
