"""Fixtures: kernels that a module shares, and kernels of a test's own.

A shared kernel is replaced after a test that failed, so that one broken promise
does not drag others with it.
"""
import json
import os
import shutil
import subprocess
import tempfile

import pytest

from support import target
from support.kernel import Kernel


@pytest.fixture(scope="session", autouse=True)
def home():
    """Nothing of the user's own configuration takes part, and nothing is left in it."""
    folder = tempfile.mkdtemp(prefix="cob-test-")
    names = ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR",
             "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")
    for name in names:
        path = os.path.join(folder, name.lower())
        os.mkdir(path, mode=0o700)
        os.environ[name] = path
    # Without it the runtime folder is the one of XDG_RUNTIME_DIR: no server of anybody else is found.
    os.environ.pop("COB_RUNTIME_DIR", None)
    for name in ("JUPYTER_PATH", "PYTHONPATH", "PYTHONSTARTUP", "MPLBACKEND"):
        os.environ.pop(name, None)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def server(home, request):
    """With --warm: a server from whose warm workers all kernels are served."""
    if not request.config.getoption("--warm"):
        yield
        return
    command = [target.COB, "serve", "--import", "asyncio,json,matplotlib,numpy,pandas"]
    for python in (target.RICH, target.BARE):
        command += ["--python", python]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield
    info = json.loads(subprocess.run([target.COB, "info", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()
    counters = info["counters"]
    assert counters["leased_warm"] + counters["leased_forked"] > 0, info


@pytest.fixture(scope="session")
def kernelspecs(home, request):
    """A folder of kernelspecs with `rich`, `bare` and every other Python there is."""
    prefix = os.path.join(home, "prefix")
    kernels = None
    for name, python in {"rich": target.RICH, "bare": target.BARE, **target.pythons()}.items():
        if python:
            kernels = target.install(name, python, prefix)
            if request.config.getoption("--surviving"):
                target.add_arguments(kernels / name, ["--grace", "5"])
    if target.IS_COB:
        target.install_language("javascript", prefix)
        if request.config.getoption("--surviving"):
            target.add_arguments(kernels / "javascript", ["--grace", "5"])
    return kernels


@pytest.fixture(scope="module")
def launch(kernelspecs, tmp_path_factory):
    """Starts kernels by name; all of them end with the module."""
    started = []

    def start(name, **options):
        kernel = Kernel(kernelspecs, name, tmp_path_factory.mktemp(name), **options)
        started.append(kernel)
        return kernel

    yield start
    for kernel in started:
        kernel.close()


@pytest.fixture(scope="module")
def shared(launch):
    """The module's kernels by name, started when first asked for."""
    return {}


def _lend(name, shared, launch, request):
    kernel = shared.get(name)
    if kernel is None or not kernel.is_usable():
        kernel = shared[name] = launch(name)
    yield kernel
    report = getattr(request.node, "report", None)
    if report is None or not report.passed:
        kernel.close()
        shared[name] = None


@pytest.fixture
def rich(shared, launch, request):
    """A shared kernel in an environment with IPython, numpy, pandas, matplotlib."""
    yield from _lend("rich", shared, launch, request)


@pytest.fixture
def bare(shared, launch, request):
    """A shared kernel in an environment with nothing but Python."""
    yield from _lend("bare", shared, launch, request)


@pytest.fixture(params=["rich", "bare"])
def kernel(request, shared, launch):
    """Either of the shared kernels: a promise that does not depend on IPython."""
    yield from _lend(request.param, shared, launch, request)


@pytest.fixture
def own(launch):
    """Starts a kernel of the test's own, which the test may end or break."""
    kernels = []

    def start(name="bare", **options):
        kernels.append(launch(name, **options))
        return kernels[-1]

    yield start
    for kernel in kernels:
        kernel.close()


def pytest_addoption(parser):
    parser.addoption("--warm", action="store_true", help="give kernels warm workers, of a server that is started for it")
    parser.addoption("--surviving", action="store_true", help="run kernels whose workers would outlive them")
    parser.addoption("--all", action="store_true", help="on the reference kernel, run what only cob promises too")


def pytest_collection_modifyitems(config, items):
    if target.IS_COB or config.getoption("--all"):
        return
    for item in items:
        if marker := item.get_closest_marker("cob_only"):
            reason = marker.args[0] if marker.args else "not promised by the reference kernel"
            item.add_marker(pytest.mark.skip(reason=f"ipykernel: {reason}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.report = report
    return report
