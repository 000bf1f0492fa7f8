"""A server that is reached from elsewhere: everything is encrypted, and whoever comes is the name of their key."""
import pytest
import zmq

import cob_client
from server import COB, Server


@pytest.fixture(scope="module")
def server():
    if COB is None:
        pytest.skip("COB_BIN names no server")
    server = Server("--tcp", "127.0.0.1:0", "--curve", clients=["ann", "bob"])
    yield server
    server.close()


def connect(server, name, **options):
    return cob_client.connect(server.described()["curve"]["endpoint"], curve=server.curve_keys(name), **options)


async def test_who_comes_is_the_name_of_their_key(server):
    assert server.described()["tcp"] is None
    async with connect(server, "ann") as ann, connect(server, "bob") as bob:
        assert (ann.principal, bob.principal) == ("ann", "bob")
        async with await ann.open_session() as session:
            assert (await session.run("6 * 7")).text == "42"
            assert (await session.info())["principal"] == "ann"
            assert await bob.sessions() == []
            with pytest.raises(cob_client.Forbidden):
                await bob.session(session.id)
    with pytest.raises(cob_client.Forbidden):
        await connect(server, "bob", principal="ann", hello_timeout=10)


async def test_who_has_no_key_is_refused(server):
    described = server.described()["curve"]
    stranger = cob_client.CurveKeys(described["public_key"], zmq.curve_keypair()[1].decode())
    with pytest.raises(cob_client.ServerNotFound):
        await cob_client.connect(described["endpoint"], curve=stranger, hello_timeout=2)
    with pytest.raises(cob_client.ServerNotFound):
        await cob_client.connect(described["endpoint"], hello_timeout=2)
    server.cob("keys", "remove", "bob")
    keys = server.curve_keys("ann")
    assert "bob" not in server.cob("keys", "list")
    async with cob_client.connect(described["endpoint"], curve=keys) as ann:
        await ann.ping()
