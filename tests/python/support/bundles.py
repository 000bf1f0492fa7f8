"""Sessions that are saved and loaded without a kernel: two interpreters and a file between them."""
import json
import os
import pickle
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[2] / "executors" / "python"
START = "import bundle_end; bundle_end.main()"


class Session:
    """What was saved in one interpreter, to be loaded in others."""

    def __init__(self, python, folder, without=()):
        self.python, self.file = python, folder / "bundle"
        self.prelude = "".join(f"__import__('sys').modules[{name!r}] = None\n" for name in without)
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(PACKAGE)))}

    def save(self, code, **environment):
        outline = self._run("save", code, environment)
        names = [name for component in outline["components"] for name in component["names"]]
        missing = [entry["name"] for entry in outline["missing"]]
        assert not set(names) & set(missing) and len(names) == len(set(names)), outline
        return outline

    def load(self, code="", force=False, python=None, **environment):
        """Checks with `code` what was loaded; `outcome` is there what `load` answered."""
        return self._run("load", code, environment, "force" if force else "", python)

    def blobs(self):
        return pickle.loads(self.file.read_bytes())[1]

    def _run(self, action, code, environment, force="", python=None):
        process = subprocess.run(
            [python or self.python, "-W", "ignore", "-c", START, action, str(self.file), force],
            input=self.prelude + code, env={**self.environment, **environment}, capture_output=True, text=True, timeout=120,
        )
        assert process.returncode == 0, process.stderr[-4000:]
        return json.loads(process.stdout.splitlines()[-1])


def reasons(outcome):
    return {entry["name"]: entry["reason"] for entry in outcome["missing"]}
