"""Fixtures. Tests of coroutines run on a loop of their own."""
import asyncio
import inspect
import shutil
import tempfile

import pytest

import cob_client
from fake import Fake
from server import COB, Server


def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), 100))
    return True


@pytest.fixture
def place():
    """A folder with a short name: addresses of local sockets have at most 107 bytes."""
    folder = tempfile.mkdtemp(prefix="cob-sdk-", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fake(place):
    """Makes a server that does as it is told: `async with fake() as (server, client)`."""

    class Pair:
        def __init__(self, **options):
            self.options = {"patience": cob_client.Patience(first=0.01, longest=0.05, total=30), **options}

        async def __aenter__(self):
            self.server = await Fake(place).__aenter__()
            self.client = await cob_client.connect(self.server.file, **self.options)
            return self.server, self.client

        async def __aexit__(self, *_):
            await self.client.close()
            await self.server.__aexit__()

    return Pair


@pytest.fixture(scope="session")
def shared_server():
    if COB is None:
        pytest.skip("COB_BIN names no server")
    server = Server("--tcp", "127.0.0.1:0")
    yield server
    server.close()


@pytest.fixture
def connect(shared_server):
    """Connects to a server that other tests use, too."""

    def connect(**options):
        return cob_client.connect(shared_server.file, **options)

    return connect


@pytest.fixture
def own_server():
    """A server of the test's own, which it may kill."""
    if COB is None:
        pytest.skip("COB_BIN names no server")
    server = Server()
    yield server
    server.close()
