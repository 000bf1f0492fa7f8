"""Checkpoints, against the real server."""
import asyncio

import pytest

import cob_client
from server import Server

#: It does not hear the interrupt.
STUCK = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nx.append('lost')\nwhile True: pass"
THREAD = "import threading\ne = threading.Event()\nt = threading.Thread(target=e.wait)\nt.start()"


async def test_a_session_goes_back_as_often_as_one_likes(connect):
    async with connect() as client, await client.open_session() as session:
        await session.run("x = [1]; y = x")
        before = await session.checkpoint("before")
        assert (before.tier, before.execution, before.is_durable, before.automatic) == ("memory", 1, False, False)
        for way in (before, "before", before.id):
            await session.run("x.append(2); z = 3")
            told = await session.restore(way)
            assert (told.checkpoint, told.tier) == (before.id, "memory") and told.executions_since >= 1
            assert (await session.run("x, x is y, 'z' in globals()")).text == "([1], True, False)"
        assert [each.id for each in await session.checkpoints()] == [before.id]
        await before.drop()
        assert await session.checkpoints() == []
        with pytest.raises(cob_client.NotFound):
            await session.restore(before)


async def test_undo_goes_back_to_before_the_last_executions(connect):
    async with connect() as client, await client.open_session(checkpoints="auto") as session:
        for n in range(4):
            await session.run(f"x = {n}")
        assert (await session.undo()).tier == "memory"
        assert (await session.run("x")).text == "2"
        found = await session.checkpoints()
        assert found.policy["mode"] == "auto" and all(each.automatic for each in found)
        with pytest.raises(cob_client.NotFound):
            await session.undo(1000)


async def next_restored(events):
    async for event in events:
        if event.kind == "restored":
            return cob_client.Restoration.of(event.content)


async def test_code_that_has_to_be_killed_costs_only_its_own_changes(connect):
    async with connect() as client, await client.open_session(checkpoints="auto", interrupt_grace=0.3) as session:
        events = session.events()
        # It follows the session from its first event on.
        assert (await events.__anext__()).kind in ("status", "began")
        await session.run("x = ['kept']")
        with pytest.raises(cob_client.ExecutionError) as caught:
            await session.run(STUCK, deadline=0.5)
        restored = caught.value.result.restored
        assert caught.value.result.settlement.session_state == "restored" and restored.tier == "memory"
        assert restored.executions_since == 1 and await next_restored(events) == restored
        result = await session.run("import os; x")
        assert result.text == "['kept']" and result.restored is None
        crashed = await session.run("x.clear(); os.kill(os.getpid(), 9)", check=False)
        assert crashed.error.code == "worker_lost" and await next_restored(events) == crashed.restored
        assert (await session.run("x")).text == "['kept']"


async def test_without_checkpoints_variables_are_lost_and_said_to_be(connect):
    async with connect() as client, await client.open_session() as session:
        await session.run("x = 1")
        result = await session.run("import os; os.kill(os.getpid(), 9)", check=False)
        assert result.settlement.session_state == "lost" and result.restored is None


async def test_branches_begin_where_the_session_stands_and_go_their_own_way(connect):
    async with connect() as client, await client.open_session(name="tree") as session:
        await session.run("import random; x = [0]; gen = iter(range(9)); next(gen)")
        branches = await session.fork(3, key="three")
        assert [each.id for each in await session.fork(3, key="three")] == [each.id for each in branches]
        texts = await asyncio.gather(*(
            each.run(f"x.append({n}); (x, next(gen))") for n, each in enumerate(branches, 1)))
        assert [each.text for each in texts] == ["([0, 1], 1)", "([0, 2], 1)", "([0, 3], 1)"]
        numbers = {(await each.run("random.random()")).text for each in branches}
        assert len(numbers) == 3
        assert (await session.run("x, next(gen)")).text == "([0], 1)"
        assert (await branches[0].info())["name"] == "tree-1"
        for branch in branches:
            await branch.close()


async def test_branches_begin_at_a_checkpoint(connect):
    async with connect() as client, await client.open_session() as session:
        await session.run("x = 'then'")
        then = await session.checkpoint("then")
        await session.run("x = 'now'")
        for branch in [*await then.fork(), *await session.fork(checkpoint="then")]:
            async with branch:
                assert (await branch.run("x")).text == "'then'"


async def test_what_a_checkpoint_cannot_hold_is_refused_or_told(connect):
    async with connect() as client, await client.open_session() as session:
        await session.run(THREAD)
        with pytest.raises(cob_client.CheckpointRefused, match="thread"):
            await session.checkpoint()
        forced = await session.checkpoint(force=True)
        assert "thread" in [each.kind for each in forced.findings]
        await session.run("e.set(); t.join()")


async def test_a_durable_one_says_what_it_lacks_and_costs_only_what_changed(connect):
    async with connect() as client, await client.open_session() as session:
        await session.run("x = bytearray(8 << 20); y = x; g = (n for n in ())\ndef f(): return len(x)")
        first = await session.checkpoint(durable=True)
        assert (first.tier, first.is_durable) == ("both", True) and first.bytes > 8 << 20
        assert [each.name for each in first.missing] == ["g"]
        await session.run("z = 1")
        second = await session.checkpoint(durable=True)
        assert second.new_bytes < first.bytes / 20
        # As long as it is in memory, too, everything comes back.
        assert (await session.restore(first)).tier == "memory"
        assert (await session.run("next(g, 'end'), 'z' in globals()")).text == "('end', False)"
        async with await client.open_session() as other:
            told = await other.restore(first)
            assert told.tier == "durable" and {"x", "y", "f"} <= set(told.restored)
            assert [each.name for each in told.missing] == ["g"]
            assert (await other.run("x is y, f(), 'z' in globals()")).text == "(True, 8388608, False)"


async def test_a_durable_one_is_set_beside_what_is_there_or_in_a_fresh_worker(connect):
    async with connect() as client, await client.open_session() as session, await client.open_session() as other:
        await session.run("x = 1")
        kept = await session.checkpoint(durable=True)
        for fresh in (False, True):
            await other.run("x = 2; later = 3")
            told = await other.restore(kept, fresh=fresh)
            assert (told.tier, told.restored) == ("durable", ("x",))
            assert ("later" in told.kept) is not fresh
            assert (await other.run("x, 'later' in globals()")).text == f"(1, {not fresh})"


async def test_a_session_sleeps_and_wakes_with_its_variables(connect):
    async with connect() as client, await client.open_session() as session:
        await session.run("x = {'n': 1}; g = (n for n in x)")
        with pytest.raises(cob_client.CheckpointRefused, match="g"):
            await session.hibernate()
        assert (await session.run("next(g)")).text == "'n'"
        await session.run("del g")
        asleep = await session.hibernate()
        assert (await session.info())["state"] == "dormant" and asleep.tier == "durable"
        result = await session.run("x")
        assert result.text == "{'n': 1}" and result.restored.checkpoint == asleep.id
        assert (await session.run("x")).restored is None


async def test_a_killed_server_costs_what_is_in_memory_and_nothing_durable(own_server):
    async with cob_client.connect(own_server.file) as client:
        session = await client.open_session(checkpoints="auto")
        await session.run("x = 1")
        kept = await session.checkpoint(durable=True)
        await session.run("x = 2")
        await session.hibernate()
        own_server.kill()
        own_server.start()
        found = await session.checkpoints()
        assert kept.id in [each.id for each in found] and {each.tier for each in found} == {"durable"}
        result = await session.run("x")
        assert result.text == "2" and result.restored is not None
        await session.restore(kept, fresh=True)
        assert (await session.run("x")).text == "1"


async def test_a_bundle_goes_from_one_server_to_another_with_its_key(own_server, tmp_path):
    other = Server()
    try:
        async with cob_client.connect(own_server.file) as client, cob_client.connect(other.file) as there:
            session, target = await client.open_session(), await there.open_session()
            await session.run("x = [1, 2]; y = x")
            checkpoint = await session.checkpoint(durable=True)
            path = str(tmp_path / "one.cob")
            assert await checkpoint.export(path) == (tmp_path / "one.cob").stat().st_size
            with pytest.raises(cob_client.Untrusted):
                await target.import_checkpoint(path)
            (key,) = own_server.home.rglob("bundle.key")
            imported = await target.import_checkpoint(path, key=key.read_text().strip())
            assert imported.id.startswith(f"{target.id}.k")
            told = await imported.restore()
            assert set(told.restored) >= {"x", "y"}
            assert (await target.run("x, x is y")).text == "([1, 2], True)"
            # Here it is signed already.
            again = await session.import_checkpoint(path)
            assert again.id != checkpoint.id
    finally:
        other.close()


def test_without_asyncio(shared_server):
    with cob_client.connect_blocking(shared_server.file) as client, client.open_session() as session:
        session.run("x = 1")
        checkpoint = session.checkpoint("one")
        session.run("x = 2")
        assert checkpoint.restore().checkpoint == checkpoint.id
        (branch,) = session.fork()
        with branch:
            assert branch.run("x").text == session.run("x").text == "1"
        assert "one" in [each.label for each in session.checkpoints()]
        checkpoint.drop()
