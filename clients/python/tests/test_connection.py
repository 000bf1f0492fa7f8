"""Reconnecting and resuming, against a server that loses, repeats and withholds on command."""
import asyncio
import os

import pytest
import zmq
import zmq.asyncio
import zmq.auth
from zmq.auth.asyncio import AsyncioAuthenticator

import cob_client
from cob_client.session import Session
from cob_client.wire import Codec
from fake import Got


def session_of(client):
    return Session(client, "s1", is_own=False)


async def test_hello_says_who_one_is_and_learns_who_answers(fake):
    async with fake(principal="ann", name="tests") as (server, client):
        hello = server.got[0]
        assert hello.type == "hello_request"
        assert hello.content == {"versions": [1], "client": "tests", "principal": "ann"}
        assert client.hello["server"] == {"name": "fake"} and client.principal == "local"
        assert "local connected" in repr(client)


async def test_where_nobody_listens_the_error_comes_at_once_and_names_the_place(place):
    with pytest.raises(cob_client.ServerNotFound, match="nobody"):
        await cob_client.connect(f"ipc://{place}/nobody")


async def test_a_refused_hello_is_raised_and_not_repeated(fake):
    async with fake() as (server, _):
        server.handlers["hello_request"] = lambda got: got.refuse("unsupported_version")
        with pytest.raises(cob_client.RequestError) as caught:
            await cob_client.connect(server.file)
        assert caught.value.code == "unsupported_version"
        assert len([got for got in server.got if got.type == "hello_request"]) == 2


async def test_keys_that_are_none_are_refused_at_once(fake):
    async with fake() as (server, _):
        curve = cob_client.CurveKeys("too short", "secret")
        with pytest.raises(cob_client.CobError):
            await cob_client.connect("tcp://127.0.0.1:1", curve=curve)
        assert "secret" not in repr(curve)


async def test_an_encrypted_connection_needs_the_servers_key_and_ones_own(place):
    public, secret = zmq.curve_keypair()
    context = zmq.asyncio.Context()
    guard = AsyncioAuthenticator(context)
    guard.start()
    known = f"{place}/known"
    os.mkdir(known)
    zmq.auth.create_certificates(known, "ann")
    own_public, own_secret = zmq.auth.load_certificate(f"{known}/ann.key_secret")
    guard.configure_curve(domain="*", location=known)
    socket = context.socket(zmq.ROUTER)
    socket.curve_server, socket.curve_publickey, socket.curve_secretkey, socket.linger = True, public, secret, 0
    url = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"

    async def serve():
        codec = Codec(b"", "server")
        while True:
            identity, *parts = await socket.recv_multipart()
            reply = codec.write("hello_reply", "r", {"status": "ok", "principal": "ann"})
            await socket.send_multipart([identity, *reply[:3], parts[2], *reply[4:]])

    serving = asyncio.ensure_future(serve())
    try:
        secret_file = f"{place}/ann.key"
        with open(secret_file, "w") as file:
            file.write(own_secret.decode() + "\n")
        keys = cob_client.CurveKeys.read(public.decode(), secret_file)
        assert keys.public == own_public.decode()
        async with cob_client.connect(url, curve=keys) as client:
            assert client.principal == "ann"
        stranger = cob_client.CurveKeys(public.decode(), zmq.curve_keypair()[1].decode())
        with pytest.raises(cob_client.ServerNotFound):
            await cob_client.connect(url, curve=stranger, hello_timeout=2)
    finally:
        serving.cancel()
        guard.stop()
        context.destroy(linger=0)


async def test_a_request_without_a_reply_is_sent_again_on_a_new_connection_with_its_key(fake):
    async with fake() as (server, client):
        opening = asyncio.ensure_future(client.open_session())
        first = await server.wait_for("session_open")
        await server.restart()
        second = await server.wait_for("session_open", 2)
        second.reply(session_id="s7", state="starting")
        assert (await opening).id == "s7"
        assert first.content == second.content and len(first.content["idempotency_key"]) == 32
        assert first.id != second.id and first.identity == second.identity
        assert [got.type for got in server.got] == ["hello_request", "session_open"] * 2


async def test_an_interrupt_is_not_repeated(fake):
    async with fake() as (server, client):
        interrupting = asyncio.ensure_future(session_of(client).interrupt())
        await server.wait_for("interrupt")
        await server.restart()
        with pytest.raises(cob_client.ConnectionLost, match="interrupt"):
            await interrupting
        await client.ping()
        assert len([got for got in server.got if got.type == "interrupt"]) == 1


async def test_a_server_that_is_there_and_silent_is_given_up(fake):
    async with fake(heartbeat=0.1) as (server, client):
        asking = asyncio.ensure_future(client.server_info())
        await server.wait_for("server_info")
        await server.wait_for("ping")
        # It answered that one: it lives. Now it says nothing any more.
        del server.handlers["ping"]
        again = await server.wait_for("server_info", 2)
        again.reply(sessions={"open": 3})
        assert (await asking)["sessions"] == {"open": 3}


async def test_patience_ends_and_begins_again_with_the_next_request(fake):
    patience = cob_client.Patience(first=0.01, longest=0.02, total=0.1)
    async with fake(patience=patience) as (server, client):
        await server.stop()
        with pytest.raises(cob_client.ConnectionLost, match="did not come back"):
            await client.ping()
        await server.restart()
        await client.ping()


async def test_busy_is_tried_again_after_the_time_that_the_server_names(fake):
    async with fake() as (server, client):
        refused = []

        def refuse_twice(got: Got):
            if len(refused) < 2:
                refused.append(got.content)
                got.refuse("busy", retry_after_ms=1)
            else:
                got.reply(session_id="s1", state="idle")

        server.handlers["session_open"] = refuse_twice
        await client.open_session()
        assert len(refused) == 2 and refused[0] == refused[1]


async def test_busy_for_too_long_is_raised(fake):
    async with fake(busy_patience=cob_client.Patience(first=0.01, longest=0.02, total=0.1)) as (server, client):
        server.handlers["session_open"] = lambda got: got.refuse("busy", retry_after_ms=1)
        with pytest.raises(cob_client.Busy):
            await client.open_session()


@pytest.mark.parametrize("code", ["not_greeted", "shutting_down"])
async def test_a_server_that_wants_another_connection_gets_one(fake, code):
    async with fake() as (server, client):
        server.handlers["server_info"] = lambda got: (
            got.refuse(code) if len(server.got) < 3 else got.reply(sessions={}))
        await client.server_info()
        assert [got.type for got in server.got] == ["hello_request", "server_info"] * 2


async def test_a_refused_execution_is_raised_by_execute(fake):
    async with fake() as (server, client):
        server.handlers["execute_request"] = lambda got: got.refuse("key_reused")
        with pytest.raises(cob_client.KeyReused):
            await session_of(client).execute("1", key="k")


async def test_what_no_server_takes_is_refused_here_and_the_connection_stays(fake):
    async with fake() as (server, client):
        with pytest.raises(cob_client.LimitReached, match="100000") as caught:
            await session_of(client).execute("x" * 200_000)
        assert caught.value.code == "request_too_large"
        with pytest.raises(ValueError, match="deadline"):
            await session_of(client).execute("1", deadline=-1)
        server.handlers["server_info"] = lambda got: got.reply()
        await client.server_info()
        assert [got.type for got in server.got] == ["hello_request", "server_info"]


async def test_repeated_events_are_read_once_and_give_their_credit_back(fake):
    async with fake(window=4) as (server, client):
        def serve(got: Got):
            got.ack("s1.e1")
            for number in (1, 1, 2, 1, 2, 3):
                got.event("s1.e1", number, f"{number}")
            got.event("s1.e1", 4, kind="done")
            got.done("s1.e1", 4)

        server.handlers["execute_request"] = serve
        result = await session_of(client).run("1")
        assert result.stdout == "123" and result.execution_count == 1
        # The two that came again were not read, and cost credit all the same.
        assert (await server.wait_for("credit")).content["credit"] == 2


async def test_events_that_are_missing_are_asked_for(fake):
    async with fake() as (server, client):
        def leave_one_out(got: Got):
            got.ack("s1.e1")
            got.event("s1.e1", 1, "a")
            got.event("s1.e1", 3, "c")

        def subscribe(got: Got):
            got.reply(subscription=got.id)
            for number in range(got.content["from"], 4):
                got.event("s1.e1", number, " abc"[number])
            got.event("s1.e1", 4, kind="done")

        server.handlers["execute_request"] = leave_one_out
        server.handlers["subscribe"] = subscribe
        execution = await session_of(client).execute("1")
        assert [event.text async for event in execution] == ["a", "b", "c"]
        asked = await server.wait_for("subscribe")
        # Event 1 may have been read by now, and gave its place in the window back.
        assert asked.content in [{"promise": "s1.e1", "from": 2, "credit": credit} for credit in (255, 256)]


async def test_events_that_never_come_are_an_error_and_not_a_loop(fake):
    async with fake() as (server, client):
        def skip(got: Got):
            got.reply(subscription=got.id)
            got.event("s1.e1", 2, "b")

        server.handlers["execute_request"] = lambda got: (got.ack("s1.e1"), got.event("s1.e1", 2, "b"))
        server.handlers["subscribe"] = skip
        execution = await session_of(client).execute("1")
        with pytest.raises(cob_client.ProtocolError, match="event 1"):
            await execution.next_event()


async def test_a_gap_is_told_and_reading_goes_on_behind_it(fake):
    async with fake() as (server, client):
        def serve(got: Got):
            got.ack("s1.e1")
            got.say("gap", {"subscription": got.id, "promise": "s1.e1", "from": 1, "next": 9})
            got.event("s1.e1", 9, "z")
            got.done("s1.e1", 9)

        server.handlers["execute_request"] = serve
        execution = await session_of(client).execute("1")
        assert [event.kind async for event in execution] == ["gap", "stream"]
        assert (await execution.result()).gaps == [(1, 9)]


async def test_an_execution_goes_on_after_a_reconnect_from_the_event_after_the_last(fake):
    async with fake() as (server, client):
        server.handlers["execute_request"] = lambda got: (
            got.ack("s1.e1"), got.event("s1.e1", 1, "a"), got.event("s1.e1", 2, "b"))
        execution = await session_of(client).execute("1")
        assert (await execution.next_event()).text == "a"
        # Its answer comes behind event 2.
        await client.ping()
        await server.restart()
        subscribe = await server.wait_for("subscribe")
        # Event 2 has come and was not read: it takes its place in the window.
        assert subscribe.content == {"promise": "s1.e1", "from": 3, "credit": 255}
        waiting = await server.wait_for("promise_wait")
        assert waiting.content == {"promise": "s1.e1"}
        # What the old subscription still sends is not of this connection.
        subscribe.event("s1.e1", 3, "old", subscription="old")
        subscribe.reply(subscription=subscribe.id)
        subscribe.event("s1.e1", 3, "c")
        view = {"promise": "s1.e1", "state": "resolved", "last_event": 3, "value": {"status": "ok"}}
        waiting.reply(promise=view)
        assert [event.text async for event in execution] == ["b", "c"]
        assert (await execution.result()).stdout == "abc"


async def test_an_execution_whose_ack_was_lost_is_asked_for_again(fake):
    async with fake() as (server, client):
        starting = asyncio.ensure_future(session_of(client).execute("1"))
        first = await server.wait_for("execute_request")
        await server.restart()
        second = await server.wait_for("execute_request", 2)
        assert first.content == second.content
        second.ack("s1.e1", joined=True)
        execution = await starting
        # It joined itself: that is not news.
        assert execution.promise == "s1.e1" and not execution.joined
        second.event("s1.e1", 1, "once")
        second.done("s1.e1", 1)
        assert (await execution.result()).stdout == "once"


async def test_credit_is_granted_as_events_are_read_and_not_before(fake):
    async with fake(window=8) as (server, client):
        server.handlers["execute_request"] = lambda got: (
            got.ack("s1.e1"), [got.event("s1.e1", n, str(n)) for n in range(1, 9)])
        execution = await session_of(client).execute("1")
        await client.ping()
        assert server.got[1].content["credit"] == 8
        assert not [got for got in server.got if got.type == "credit"]
        for _ in range(4):
            await execution.next_event()
        credit = await server.wait_for("credit")
        assert credit.content == {"subscription": server.got[1].id, "credit": 4}


async def test_a_subscriber_that_was_too_slow_subscribes_again(fake):
    async with fake() as (server, client):
        server.handlers["execute_request"] = lambda got: (
            got.ack("s1.e1"),
            got.event("s1.e1", 1, "a"),
            got.say("subscription_end", {"subscription": got.id, "reason": "failed",
                                         "error": {"code": "slow_subscriber", "evalue": "slow"}}),
        )
        server.handlers["subscribe"] = lambda got: (
            got.reply(subscription=got.id), got.event("s1.e1", 2, "b"), got.event("s1.e1", 3, kind="done"))
        execution = await session_of(client).execute("1")
        assert [event.text async for event in execution] == ["a", "b"]


async def test_an_execution_without_events_ends(fake):
    async with fake() as (server, client):
        server.handlers["execute_request"] = lambda got: (got.ack("s1.e1"), got.done("s1.e1", 0))
        result = await session_of(client).run("pass")
        assert result.ok and result.stdout == ""


async def test_waiting_for_the_end_reads_no_events_and_can_time_out(fake):
    async with fake() as (server, client):
        server.handlers["execute_request"] = lambda got: got.ack("s1.e1")
        execution = await session_of(client).execute("1")
        with pytest.raises(cob_client.NotSettled):
            await execution.wait(timeout=0.01)
        request = await server.wait_for("execute_request")
        request.done("s1.e1", 300)
        assert (await execution.wait()).last_event == 300 and execution.is_settled


async def test_a_session_is_followed_over_a_reconnect_without_doubles(fake):
    async with fake() as (server, client):
        def stream(got: Got, first):
            got.reply(subscription=got.id)
            for execution in range(first, 4):
                promise = f"s1.e{execution}"
                got.say("execution_began", {"subscription": got.id, "promise": promise, "code": "1"})
                got.event(promise, 1, f"{execution}.1")
                if execution == 3 and first == 1:
                    return
                # The second one ends before the first: it had the higher priority.
                got.say("execution_ended", {"subscription": got.id, "promise": {"promise": promise, "state": "resolved"}})
            got.event("s1.e3", 2, "3.2")

        server.handlers["subscribe"] = lambda got: stream(got, got.content["from"])
        events = session_of(client).events()
        seen = [await anext(events) for _ in range(8)]
        await server.restart()
        again = await server.wait_for("subscribe", 2)
        assert again.content["from"] == 3
        seen.append(await anext(events))
        assert [event.text or event.kind for event in seen] == [
            "began", "1.1", "ended", "began", "2.1", "ended", "began", "3.1", "ended"]


async def test_items_of_a_channel_are_sent_with_their_numbers_and_read_once(fake):
    async with fake() as (server, client):
        server.handlers["channel_open"] = lambda got: got.reply(
            channel="c", subscription=got.id, next=5, is_closed=False)
        server.handlers["channel_data"] = lambda got: (
            got.refuse("already_settled") if got.content["number"] == 5 else got.reply(number=got.content["number"]))
        channel = session_of(client).channel("c")
        assert await channel.send({"a": 1}) == 6
        opened = await server.wait_for("channel_open")
        for number, data in ((1, None), (1, None), (2, "two")):
            opened.say("channel_data", {"subscription": opened.id, "channel": "c", "number": number, "data": data})
        opened.say("subscription_end", {"subscription": opened.id, "reason": "session_closed"})
        assert [item async for item in channel] == [None, "two"]
        assert channel.next_number == 3


async def test_tools_are_offered_again_and_calls_are_answered_once(fake):
    async with fake() as (server, client):
        calls = []
        server.handlers["tool_register"] = Got.reply
        server.handlers["answer"] = Got.reply
        session = session_of(client)

        @session.tool
        def double(x: int):
            calls.append(x)
            return x * 2

        first = await server.wait_for("tool_register")
        assert first.content["session_id"] == "s1"
        assert first.content["tools"][0]["parameters"]["properties"] == {"x": {"type": "integer"}}
        await server.restart()
        second = await server.wait_for("tool_register", 2)
        assert second.content == first.content
        arguments = {"name": "double", "arguments": {"x": 21}}
        question = {"promise": "s1.e1.c1", "session_id": "s1", "execution": "s1.e1", "kind": "tool", "arguments": arguments}
        second.say("call", question)
        second.say("call", question)
        assert (await server.wait_for("answer")).content == {"promise": "s1.e1.c1", "value": 42}
        await client.ping()
        assert calls == [21]


@pytest.mark.parametrize("given, answer", [
    (ValueError("no"), {"error": {"ename": "ValueError", "evalue": "no"}}),
    ({1, 2}, {"error": {"ename": "TypeError", "evalue": "Object of type set is not JSON serializable"}}),
])
async def test_a_tool_that_fails_says_so(fake, given, answer):
    async with fake() as (server, client):
        server.handlers["tool_register"] = server.handlers["answer"] = Got.reply

        async def tool():
            if isinstance(given, Exception):
                raise given
            return given

        await session_of(client).register_tool(tool)
        asked = await server.wait_for("tool_register")
        asked.say("call", {"promise": "s1.e1.c1", "session_id": "s1", "kind": "tool",
                           "arguments": {"name": "tool", "arguments": {}}})
        got = await server.wait_for("answer")
        assert got.content == {"promise": "s1.e1.c1", **answer}


def test_the_blocking_client_closes_its_thread_when_there_is_no_server(place):
    import threading

    before = threading.active_count()
    with pytest.raises(cob_client.ServerNotFound):
        cob_client.connect_blocking(f"ipc://{place}/nobody")
    assert threading.active_count() == before
