"""Checkpoints, with a server that does as it is told: what is asked for, what is made of the answers."""
import asyncio
from datetime import timedelta

import pytest

import cob_client
from cob_client.checkpoint import named
from cob_client.session import Session

VIEW = {
    "checkpoint": "s1.k4", "label": "before", "tier": "both", "automatic": False, "execution": 3, "count": 2,
    "taken_at": 1_700_000_000_000_000, "parent": "s1.k2", "bytes": 100, "new_bytes": 7, "invented_later": 1,
    "findings": [{"kind": "socket", "text": "a socket to :80", "blocks": False}],
    "missing": [{"name": "conn", "kind": "sqlite3.Connection", "reason": "cannot be pickled"}],
}
RESTORATION = {
    "checkpoint": "s1.k4", "tier": "durable", "age_ms": 1500, "executions_since": 2, "restored": ["a", "b"],
    "kept": ["c"], "missing": [{"name": "conn", "kind": "Connection", "reason": "no"}], "rebuild": [1],
}


def session_of(client):
    return Session(client, "s1", is_own=False)


async def test_a_checkpoint_is_asked_for_and_told_with_its_types(fake):
    async with fake() as (server, client):
        server.handlers["checkpoint"] = lambda got: got.reply(checkpoint=VIEW)
        checkpoint = await session_of(client).checkpoint("before", durable=True)
        assert server.got[-1].content == {"session_id": "s1", "label": "before", "durable": True, "force": False}
        assert (checkpoint.id, checkpoint.tier, checkpoint.is_durable, checkpoint.execution) == ("s1.k4", "both", True, 3)
        assert checkpoint.taken_at.isoformat() == "2023-11-14T22:13:20+00:00" and checkpoint.age > timedelta(days=1)
        assert checkpoint.findings == (cob_client.Finding("socket", "a socket to :80"),)
        assert checkpoint.missing == (cob_client.Missing("conn", "sqlite3.Connection", "cannot be pickled"),)
        assert repr(checkpoint) == "<Checkpoint s1.k4 'before' both after execution 3, missing: conn, findings: socket>"


async def test_a_list_says_what_the_session_does_by_itself(fake):
    async with fake() as (server, client):
        memory = {"checkpoint": "s1.k1", "tier": "memory", "automatic": True, "execution": 0, "count": 0, "taken_at": 0}
        server.handlers["checkpoint_list"] = lambda got: got.reply(
            checkpoints=[memory, VIEW], policy={"mode": "auto", "keep": 8}, skipped="a thread runs")
        found = await session_of(client).checkpoints()
        assert [each.id for each in found] == ["s1.k1", "s1.k4"] and not found[0].is_durable
        assert found.policy["mode"] == "auto" and found.skipped == "a thread runs"
        assert repr(found[0]) == "<Checkpoint s1.k1 memory before any execution>"


async def test_a_restore_names_a_checkpoint_or_a_label_and_tells_what_came_of_it(fake):
    async with fake() as (server, client):
        server.handlers["checkpoint"] = lambda got: got.reply(checkpoint=VIEW)
        server.handlers["restore"] = lambda got: got.reply(restored=RESTORATION, state="idle")
        session = session_of(client)
        checkpoint = await session.checkpoint()
        told = await checkpoint.restore(fresh=True)
        flags = {"now": False, "fresh": True, "force": False}
        assert server.got[-1].content == {"session_id": "s1", "checkpoint": "s1.k4", **flags}
        assert (told.checkpoint, told.tier, told.age, told.executions_since) == (
            "s1.k4", "durable", timedelta(seconds=1.5), 2)
        assert (told.restored, told.kept, told.rebuild) == (("a", "b"), ("c",), (1,))
        assert repr(told) == "<Restoration s1.k4 durable, 1.5 s old, 2 executions undone, missing: conn>"
        await session.restore("before", now=True)
        assert server.got[-1].content == {"session_id": "s1", "label": "before", "now": True, "fresh": False, "force": False}
        await session.undo(3)
        assert server.got[-1].content == {"session_id": "s1", "undo": 3, "now": False}


def test_what_looks_like_a_name_is_one():
    assert named("s7.k3") == {"checkpoint": "s7.k3"}
    assert [*map(named, ("k3", "s7.k", "s7.k3 ", "best"))] == [{"label": text} for text in ("k3", "s7.k", "s7.k3 ", "best")]


async def test_a_restore_is_not_repeated_since_it_would_undo_what_others_did_meanwhile(fake):
    async with fake() as (server, client):
        restoring = asyncio.ensure_future(session_of(client).undo())
        await server.wait_for("restore")
        await server.restart()
        with pytest.raises(cob_client.ConnectionLost, match="restore"):
            await restoring
        await client.ping()
        assert len([got for got in server.got if got.type == "restore"]) == 1


async def test_a_fork_whose_reply_was_lost_is_asked_for_again_with_its_key(fake):
    async with fake() as (server, client):
        forking = asyncio.ensure_future(session_of(client).fork(2, checkpoint="s1.k4", name="try"))
        first = await server.wait_for("fork")
        assert first.content["idempotency_key"] and first.content["count"] == 2
        assert (first.content["checkpoint"], first.content["name"]) == ("s1.k4", "try")
        await server.restart()
        second = await server.wait_for("fork", 2)
        assert first.content == second.content
        second.reply(sessions=["s8", "s9"], checkpoint="s1.k4")
        branches = await forking
        assert [branch.id for branch in branches] == ["s8", "s9"]
        # They are this client's own: the block closes them.
        server.handlers["session_close"] = lambda got: got.reply()
        async with branches[0]:
            pass
        assert server.got[-1].content["session_id"] == "s8"


async def test_a_label_is_looked_up_where_the_protocol_wants_a_name(fake):
    async with fake() as (server, client):
        server.handlers["checkpoint_list"] = lambda got: got.reply(
            checkpoints=[VIEW, {**VIEW, "checkpoint": "s1.k9"}], policy={})
        server.handlers["fork"] = lambda got: got.reply(sessions=["s2"], checkpoint="s1.k9")
        session = session_of(client)
        await session.fork(checkpoint="before")
        assert server.got[-1].content["checkpoint"] == "s1.k9"
        with pytest.raises(cob_client.NotFound, match="nothing like it"):
            await session.drop_checkpoint("nothing like it")


async def test_a_checkpoint_that_is_gone_was_dropped_by_us_only_after_a_reconnect(fake):
    async with fake() as (server, client):
        server.handlers["checkpoint_delete"] = lambda got: got.refuse("unknown_checkpoint")
        session = session_of(client)
        with pytest.raises(cob_client.NotFound):
            await session.drop_checkpoint("s1.k4")
        server.handlers.pop("checkpoint_delete")
        dropping = asyncio.ensure_future(session.drop_checkpoint("s1.k4"))
        await server.wait_for("checkpoint_delete", 2)
        await server.restart()
        (await server.wait_for("checkpoint_delete", 3)).refuse("unknown_checkpoint")
        await dropping


async def test_export_import_and_hibernate_ask_for_what_they_say(fake):
    async with fake() as (server, client):
        server.handlers["hibernate"] = lambda got: got.reply(checkpoint=VIEW)
        server.handlers["checkpoint_export"] = lambda got: got.reply(bytes=4096, path=got.content["path"])
        server.handlers["checkpoint_import"] = lambda got: got.reply(checkpoint=VIEW)
        session = session_of(client)
        checkpoint = await session.hibernate(force=True)
        assert server.got[-1].content == {"session_id": "s1", "force": True}
        assert await checkpoint.export("/tmp/a.cob") == 4096
        assert server.got[-1].content == {"checkpoint": "s1.k4", "path": "/tmp/a.cob"}
        assert (await session.import_checkpoint("/tmp/a.cob", key="ab")).id == "s1.k4"
        assert server.got[-1].content == {"session_id": "s1", "path": "/tmp/a.cob", "key": "ab"}


async def test_a_session_is_opened_with_its_policy(fake):
    async with fake() as (server, client):
        server.handlers["session_open"] = lambda got: got.reply(session_id="s1", state="starting")
        for policy in ("auto", {"mode": "auto", "keep": 3}):
            await client.open_session(checkpoints=policy)
            assert server.got[-1].content["checkpoints"] == policy
        await client.open_session()
        assert "checkpoints" not in server.got[-1].content


@pytest.mark.parametrize("code, kind", [
    ("checkpoint_refused", cob_client.CheckpointRefused), ("checkpoint_failed", cob_client.CheckpointFailed),
    ("checkpoint_limit", cob_client.LimitReached), ("incompatible_checkpoint", cob_client.Incompatible),
    ("untrusted_bundle", cob_client.Untrusted), ("unknown_checkpoint", cob_client.NotFound),
])
async def test_refusals_have_classes(fake, code, kind):
    async with fake() as (server, client):
        server.handlers["restore"] = lambda got: got.refuse(code)
        with pytest.raises(kind) as caught:
            await session_of(client).restore("s1.k1")
        assert caught.value.code == code


async def test_a_result_says_where_the_variables_come_from(fake):
    async with fake() as (server, client):
        def lost(got):
            got.ack("s1.e1")
            cob = {"state": "rejected", "last_event": 0, "session_state": "restored", "restored": RESTORATION}
            got.say("execute_reply", {"status": "error", "ename": "WorkerLost", "evalue": "killed", "code": "worker_lost"},
                    {"cob": cob})

        server.handlers["execute_request"] = lost
        result = await session_of(client).run("1", check=False)
        assert result.restored.checkpoint == "s1.k4" and result.settlement.session_state == "restored"
        assert "restored=s1.k4" in repr(result)
        # The same is told of a promise.
        view = {"promise": "s1.e1", "state": "rejected", "value": {}, "session_state": "restored", "restored": RESTORATION}
        assert cob_client.Settlement.of_view(view).restored == result.restored
        server.handlers["execute_request"] = lambda got: (got.ack("s1.e2"), got.done("s1.e2", 0))
        assert (await session_of(client).run("1")).restored is None


async def test_whoever_follows_the_session_is_told(fake):
    async with fake() as (server, client):
        def serve(got):
            got.reply(subscription=got.id)
            got.say("session_restored", {"subscription": got.id, "session_id": "s1", "restored": RESTORATION})

        server.handlers["subscribe"] = serve
        event = await session_of(client).events().__anext__()
        assert event.kind == "restored" and cob_client.Restoration.of(event.content).checkpoint == "s1.k4"


async def test_the_same_without_asyncio(fake):
    async with fake() as (server, _):
        server.handlers["checkpoint"] = lambda got: got.reply(checkpoint=VIEW)
        server.handlers["checkpoint_list"] = lambda got: got.reply(checkpoints=[VIEW], policy={"mode": "manual"})
        server.handlers["restore"] = lambda got: got.reply(restored=RESTORATION, state="idle")
        server.handlers["fork"] = lambda got: got.reply(sessions=["s2", "s3"], checkpoint="s1.k4")
        server.handlers["checkpoint_delete"] = lambda got: got.reply()
        server.handlers["session_info"] = lambda got: got.reply(session={})

        def work():
            with cob_client.connect_blocking(server.file) as client:
                session = client.session("s1")
                checkpoint = session.checkpoint("before")
                assert session.checkpoints() == [checkpoint] and session.checkpoints().policy == {"mode": "manual"}
                assert checkpoint.restore().restored == session.undo().restored == ("a", "b")
                assert [branch.id for branch in checkpoint.fork(2)] == ["s2", "s3"]
                checkpoint.drop()
                assert repr(checkpoint).startswith("<BlockingCheckpoint s1.k4 ")

        await asyncio.to_thread(work)
        assert server.got[-1].content == {"checkpoint": "s1.k4"}


def test_blocking_classes_have_every_method():
    from cob_client import blocking, checkpoint, session

    for blocks, waits in ((blocking.BlockingSession, session.Session), (blocking.BlockingCheckpoint, checkpoint.Checkpoint)):
        assert {name for name in vars(waits) if not name.startswith("_")} <= {*dir(blocks)}
