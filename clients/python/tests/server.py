"""`cob serve` as a child process, in folders of its own."""
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cob_client

COB = os.environ.get("COB_BIN")
#: The interpreter of sessions.
PYTHON = os.environ.get("COB_TEST_PYTHON", sys.executable)


class Server:
    """One store and one runtime folder, and the process that serves them at the moment."""

    def __init__(self, *arguments, clients=()):
        self.home = Path(tempfile.mkdtemp(prefix="cob-sdk-", dir="/tmp"))
        self.runtime = self.home / "run"
        self.file = self.runtime / "server.json"
        self._arguments = ["--python", PYTHON, "--import", "", "--spares", "1", *arguments]
        self._process = None
        for name in clients:
            self.cob("keys", "add", name)
        self.start()

    @property
    def environment(self):
        variables = {"COB_RUNTIME_DIR": self.runtime, "COB_STATE_DIR": self.home / "state", "HOME": self.home,
                     "COB_KEYS_DIR": self.home / "keys", "XDG_CONFIG_HOME": self.home}
        return {**os.environ, **{name: str(value) for name, value in variables.items()}}

    def cob(self, *arguments):
        """What a command of cob prints."""
        return subprocess.run([COB, *arguments], env=self.environment, check=True, capture_output=True, text=True).stdout

    def curve_keys(self, name):
        """Those of a client that `cob keys` has let in."""
        return cob_client.CurveKeys.read(self.described()["curve"]["public_key"], self.home / "keys" / f"{name}.key")

    def start(self):
        """Returns when it serves: then it says so on its standard output."""
        with open(self.home / "log", "ab") as log:
            self._process = subprocess.Popen([COB, "serve", *self._arguments], stdin=subprocess.DEVNULL,
                                             stdout=subprocess.PIPE, stderr=log, env=self.environment)
        line = self._process.stdout.readline()
        assert line, (self.home / "log").read_text()

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        # A child that it was just starting holds its lock until it has become another program.
        with open(self.runtime / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

    def stop_process(self):
        """It is there and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def described(self):
        return json.loads(self.file.read_text())
