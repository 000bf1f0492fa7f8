"""Stage "serve" of the targets: agents and many sessions in one server; `cargo xtask bench -- --stage serve` runs it.

Every round starts a server and a `cob kernel` (and with --ipykernel an ipykernel), each in folders of its own, and asks
them with the same lean pyzmq client, which signs nothing; `agent-load` measures what Python would be too slow for. Ratios
are of one round; what is shown are medians.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import zmq
from jupyter_client.connect import write_connection_file


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cob", required=True)
    p.add_argument("--python", required=True, help="the interpreter of the workers")
    p.add_argument("--agent-load", required=True, help="the measuring client")
    p.add_argument("--ipykernel", help="an interpreter that has ipykernel")
    p.add_argument("--imports", default="numpy,pandas", help="what the pool imports in advance")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--rtt", type=int, default=500)
    p.add_argument("--opens", type=int, default=30, help="sessions opened one after the other")
    p.add_argument("--idle", type=int, default=200, help="sessions that are open at once for their memory")
    p.add_argument("--sessions", type=int, default=1000, help="sessions that execute at once")
    p.add_argument("--pipelined", type=int, default=20000)
    p.add_argument("--replay", type=int, default=48, help="megabytes")
    p.add_argument("--json", type=Path)
    return p.parse_args()


class Lean:
    """Sockets and messages, and nothing else."""

    def __init__(self, *sockets):
        self.context = zmq.Context()
        self.sockets = []
        for kind, endpoint in sockets:
            socket = self.context.socket(kind)
            socket.linger = 0
            if kind == zmq.SUB:
                socket.subscribe(b"")
            socket.connect(endpoint)
            self.sockets.append(socket)
        self.poller = zmq.Poller()
        for socket in self.sockets:
            self.poller.register(socket, zmq.POLLIN)
        self.name = uuid.uuid4().hex
        self.count = 0

    def send(self, msg_type, content):
        self.count += 1
        msg_id = f"{self.name}-{self.count}"
        header = {"msg_id": msg_id, "msg_type": msg_type, "session": self.name, "username": "bench",
                  "date": "2030-01-01T00:00:00.000000Z", "version": "5.5"}
        self.sockets[0].send_multipart([b"<IDS|MSG>", b"", json.dumps(header).encode(), b"{}", b"{}",
                                        json.dumps(content).encode()])
        return msg_id

    def messages(self, timeout=120):
        """(type, id of the request, content) of everything that comes."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for socket, _ in self.poller.poll(1000):
                parts = socket.recv_multipart()
                at = parts.index(b"<IDS|MSG>")
                header, parent, content = (json.loads(parts[at + n]) for n in (2, 3, 5))
                yield header["msg_type"], parent.get("msg_id"), content
        raise SystemExit("no answer: a failure is never a fast time")

    def reply(self, msg_id):
        for msg_type, parent, content in self.messages():
            if parent == msg_id and msg_type.endswith("_reply"):
                if content.get("status") != "ok":
                    raise SystemExit(f"{msg_type}: {content}")
                return content

    def ask(self, msg_type, content):
        return self.reply(self.send(msg_type, content))

    def close(self):
        self.context.destroy(linger=0)


class Server:
    """A `cob serve`, and an agent of it."""

    def __init__(self, options):
        self.options = options
        self.folder = tempfile.TemporaryDirectory(prefix="cob-bench-")
        runtime = Path(self.folder.name, "run")
        # Sessions have the second one: with it, what is kept warm from the start is for them.
        self.env = os.environ | {"COB_RUNTIME_DIR": str(runtime), "PYTHONNOUSERSITE": "1"}
        argv = [options.cob, "serve", "--store", str(Path(self.folder.name, "store")), "--grace", "0", *self.pool()]
        self.process = subprocess.Popen(argv, env=self.env, stdout=subprocess.DEVNULL)
        self.endpoint = self.wait(runtime / "server.json")
        self.agent = Lean((zmq.DEALER, self.endpoint))
        self.agent.ask("hello_request", {"versions": [1]})

    def pool(self):
        return ["--python", self.options.python, "--import", self.options.imports, "--spares", "4"]

    def wait(self, file):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if file.exists():
                return json.loads(file.read_text())["ipc"]
            time.sleep(0.01)
        raise SystemExit("the server did not start")

    def warm(self):
        """Until its spares are there again."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = subprocess.run([self.options.cob, "info", "--json"], env=self.env, capture_output=True, text=True)
            environments = json.loads(done.stdout)["environments"] if done.returncode == 0 else []
            if any(environment["warm"] >= 4 for environment in environments):
                return
            time.sleep(0.02)
        raise SystemExit("the server never became warm")

    def open(self, language="python"):
        return self.agent.ask("session_open", {"language": language})["session_id"]

    def run(self, session, code="1+1"):
        message = self.agent.send("execute_request", {"session_id": session, "code": code, "credit": 100})
        return self.agent.reply(message)

    def resident(self):
        """KiB that are its own."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        rows = dict(line.split(":") for line in text.splitlines()[1:])
        return sum(int(rows[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))

    def load(self):
        options = self.options
        argv = [options.agent_load, self.endpoint, f"pipelined={options.pipelined}", f"rtt={options.rtt}",
                f"sessions={options.sessions}", f"replay={options.replay}"]
        return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    def close(self):
        self.agent.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.folder.cleanup()


class Kernel:
    """A kernel of one session, and a lean front end of it."""

    def __init__(self, argv):
        self.folder = tempfile.TemporaryDirectory(prefix="cob-bench-")
        path, config = write_connection_file(str(Path(self.folder.name, "kernel.json")), key=b"")
        env = os.environ | {"COB_RUNTIME_DIR": str(Path(self.folder.name, "run"))}
        self.process = subprocess.Popen([*argv, "-f", path], env=env)
        address = [f"tcp://127.0.0.1:{config[f'{name}_port']}" for name in ("shell", "iopub")]
        self.client = Lean((zmq.DEALER, address[0]), (zmq.SUB, address[1]))
        self.ready()

    def ready(self):
        # Some kernels lose broadcasts until a subscription has reached them.
        while not self.is_answered_wholly(self.client.send("kernel_info_request", {})):
            pass

    def is_answered_wholly(self, message):
        needs = {"reply", "idle"}
        deadline = time.monotonic() + 2
        while needs and time.monotonic() < deadline:
            try:
                needs -= self.seen(message, next(self.client.messages(2)))
            except SystemExit:
                return False
        return not needs

    @staticmethod
    def seen(message, came):
        msg_type, parent, content = came
        if parent != message:
            return set()
        is_idle = msg_type == "status" and content["execution_state"] == "idle"
        return {"idle"} if is_idle else {"reply"} if msg_type.endswith("_reply") else set()

    def run(self, code="1+1"):
        message = self.client.send("execute_request", {"code": code, "allow_stdin": False})
        needs = {"reply", "idle"}
        for came in self.client.messages():
            needs -= self.seen(message, came)
            if not needs:
                return

    def close(self):
        self.client.close()
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()


def timed(act):
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1e3


def p99(values):
    return sorted(values)[min(int(len(values) * 0.99), len(values) - 1)]


def kernel(options, argv, name, found):
    measured = Kernel(argv)
    times = [timed(measured.run) for _ in range(options.rtt)]
    found[f"1+1, {name}, ms"] = statistics.median(times)
    measured.close()


def measure(options):
    server, found = Server(options), {}
    # Opening one after the other, each on a warm worker.
    opened, first = [], []
    for _ in range(options.opens):
        server.warm()
        began = time.perf_counter()
        session = server.open()
        opened.append((time.perf_counter() - began) * 1e3)
        server.run(session)
        first.append((time.perf_counter() - began) * 1e3)
        server.agent.ask("session_close", {"session_id": session})
    found["session_open, ms"] = statistics.median(opened)
    found["session_open to first reply, warm, ms"] = statistics.median(first)
    found["session_open to first reply, warm, p99, ms"] = p99(first)
    session = server.open()
    server.run(session)
    times = [timed(lambda: server.run(session)) for _ in range(options.rtt)]
    found["1+1, server, ms"] = statistics.median(times)
    found["1+1, server, p99, ms"] = p99(times)
    before = server.resident()
    sessions = [server.open() for _ in range(options.idle)]
    for opened_session in sessions:
        server.run(opened_session)
    found["memory of the server per idle session, KiB"] = (server.resident() - before) / options.idle
    for opened_session in [*sessions, session]:
        server.agent.ask("session_close", {"session_id": opened_session})
    found |= {f"{name} (Rust client)": value for name, value in server.load().items()}
    server.close()
    # The same client, the same code, a kernel of its own.
    kernel(options, [options.cob, "kernel", "--cold", "--python", options.python], "cob kernel", found)
    if options.ipykernel:
        kernel(options, [options.ipykernel, "-m", "ipykernel_launcher"], "ipykernel", found)
    base = found["1+1, cob kernel, ms"]
    found["1+1, server / cob kernel"] = found["1+1, server, ms"] / base
    if options.ipykernel:
        found["1+1, server / ipykernel"] = found["1+1, server, ms"] / found["1+1, ipykernel, ms"]
    return found


def main():
    options = arguments()
    rounds = [measure(options) for _ in range(options.rounds)]
    medians = {row: statistics.median(found[row] for found in rounds) for row in rounds[0]}
    width = max(len(row) for row in medians)
    for row, value in medians.items():
        print(f"{row:{width}}  {value:.4g}")
    if options.json:
        options.json.write_text(json.dumps({"medians": medians, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
