"""What is under test, and in which Pythons: read from the environment.

COB_BIN names the binary. Without it ipykernel stands in, so that the tests can
be judged by the kernel that every front end knows.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

COB = os.environ.get("COB_BIN")
IS_COB = COB is not None


def _python(variable, default=sys.executable):
    return os.environ.get(variable) or default


RICH = _python("COB_RICH")
BARE = _python("COB_BARE")


def pythons():
    """Name and path of every Python the suite asks for; the path is None where it is absent."""
    listed = os.environ.get("COB_PYTHONS", "").splitlines()
    pairs = (line.split("=", 1) for line in listed if "=" in line)
    return {name: path or None for name, path in pairs}


def install(name, python, prefix):
    """Registers a kernel that runs `python`; returns the folder of kernelspecs."""
    kernels = Path(prefix) / "share" / "jupyter" / "kernels"
    if IS_COB:
        subprocess.run([COB, "install", "--python", python, "--name", name, "--prefix", str(prefix)],
                       check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    else:
        _install_reference(kernels / name, python)
    return kernels


def install_language(language, prefix):
    """Registers a kernel of another language than Python; its name is that of the language."""
    subprocess.run([COB, "install", "--language", language, "--name", language, "--prefix", str(prefix)],
                   check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def add_arguments(folder, arguments):
    """Lets a kernelspec start its kernel with more arguments."""
    path = folder / "kernel.json"
    spec = json.loads(path.read_text())
    spec["argv"] += arguments
    path.write_text(json.dumps(spec))


def _install_reference(folder, python):
    """ipykernel from our own environment, with the packages of the one that was asked for."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "ipykernel", "language": "python", "env": {},
    }
    if python != sys.executable:
        packages = sorted(Path(python).parent.parent.glob("lib/python3*/site-packages"))
        spec["env"]["PYTHONPATH"] = os.pathsep.join(map(str, packages))
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
