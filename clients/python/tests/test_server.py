"""Against the real server."""
import asyncio
import re

import pytest

import cob_client


async def test_hello_says_who_one_is(connect):
    async with connect() as client:
        assert client.principal == "local"
        assert client.hello["server"]["name"] == "cob" and client.hello["version"] == 1
        await client.ping()
        assert "cob_" in await client.metrics()
        assert "sessions" in await client.server_info()


async def test_code_runs_and_its_results_are_rich(connect):
    async with connect() as client, await client.open_session(name="sdk") as session:
        result = await session.run("print('out'); import sys; print('err', file=sys.stderr)\n6 * 7")
        assert (result.stdout, result.stderr, result.text, result.ok) == ("out\n", "err\n", "42", True)
        result = await session.run(
            "class H:\n  def _repr_html_(self): return '<b>'\n  def _repr_png_(self): return b'\\x89PNG'\nH()")
        assert result.html == "<b>" and result.png == b"\x89PNG"
        assert session.id in [view["session_id"] for view in await client.sessions()]
        info = await session.info(namespace=True)
        assert info["name"] == "sdk" and "H" in str(info["namespace"])
    assert session.id not in [view["session_id"] for view in await client_views(connect)]


async def client_views(connect):
    async with connect() as client:
        return await client.sessions()


async def test_events_come_numbered_and_raw(connect):
    async with connect() as client, await client.open_session() as session:
        execution = await session.execute("import sys\nfor i in range(3):\n print(f'\\x1b[3{i}m{i}'); sys.stdout.flush()\ni")
        assert execution.promise.startswith(f"{session.id}.e") and execution.durability == "process"
        events = [event async for event in execution]
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        result = await execution.result()
        assert result.stdout == "".join(f"\x1b[3{i}m{i}\n" for i in range(3)) and result.text == "2"


async def test_errors_are_raised_with_their_traceback_or_told(connect):
    async with connect() as client, await client.open_session() as session:
        with pytest.raises(cob_client.ExecutionError) as caught:
            await session.run("def f(): 1/0\nf()")
        assert caught.value.ename == "ZeroDivisionError" and "1/0" in re.sub("\x1b[^m]*m", "", str(caught.value))
        result = await session.run("print('kept'); nonsense", check=False)
        assert not result.ok and result.error.ename == "NameError" and result.stdout == "kept\n"
        assert (await session.run("f.__name__")).text == "'f'"


async def test_a_limit_has_a_code_and_a_family(connect):
    async with connect() as client, await client.open_session() as session:
        with pytest.raises(cob_client.ExecutionError) as caught:
            await session.run("while True: pass", deadline=0.2)
        assert caught.value.code == "deadline_passed" and isinstance(caught.value.__cause__, cob_client.LimitReached)


async def test_a_retry_by_key_has_one_effect(connect, tmp_path):
    code = f"open({str(tmp_path / 'effect')!r}, 'a').write('x'); print('ran')"
    async with connect() as client, await client.open_session() as session:
        first = await session.execute(code, key="once")
        second = await session.execute(code, key="once")
        assert first.promise == second.promise and second.joined and not first.joined
        assert (await first.result()).stdout == (await second.result()).stdout == "ran\n"
        with pytest.raises(cob_client.KeyReused):
            await session.execute("other", key="once")
        assert (await client.promise(session_id=session.id, key="once"))["promise"] == first.promise
    assert (tmp_path / "effect").read_text() == "x"


async def test_fifty_at_once_with_one_key_run_once(connect, tmp_path):
    code = f"open({str(tmp_path / 'effect')!r}, 'a').write('x'); print('ran')"
    async with connect() as client, connect() as other, await client.open_session() as session:
        same = await other.session(session.id)
        results = await asyncio.gather(*((session, same)[i % 2].run(code, key="k") for i in range(50)))
        assert {result.promise for result in results} == {results[0].promise}
        assert {result.stdout for result in results} == {"ran\n"}
    assert (tmp_path / "effect").read_text() == "x"


async def test_a_session_is_found_again_by_key_and_by_name(connect):
    async with connect() as client:
        one = await client.open_session(key="the one")
        two = await client.open_session(key="the one")
        assert one.id == two.id
        await one.run("x = 5")
        async with connect() as other:
            async with await other.session(one.id) as found:
                assert (await found.run("x")).text == "5"
            # Leaving the block did not close it: another client had opened it.
            assert (await found.run("x")).text == "5"
        await one.close()
        with pytest.raises((cob_client.SessionClosed, cob_client.NotFound)):
            await one.run("1")


async def test_an_execution_is_found_again_and_read_from_any_event(connect):
    async with connect() as client, await client.open_session() as session:
        code = "import sys\nfor i in range(4):\n  print(i, file=(sys.stdout, sys.stderr)[i % 2], flush=True)"
        execution = await session.execute(code)
        whole = [event async for event in execution]
        async with connect() as other:
            again = await other.execution(execution.promise)
            assert [event async for event in again] == whole
            rest = await other.execution(execution.promise, from_=3)
            assert [event async for event in rest] == whole[2:]
            assert (await rest.wait()).state == "resolved"
            with pytest.raises(cob_client.NotFound):
                await other.execution(f"{session.id}.e999")


async def test_a_slow_reader_gets_everything_and_holds_up_nobody(connect):
    async with connect(window=8) as client, await client.open_session() as session:
        code = "import sys\nfor i in range(600):\n  print(i, file=(sys.stdout, sys.stderr)[i % 2], flush=True)"
        execution = await session.execute(code)
        # Nothing is read, and it ends all the same.
        settled = await execution.wait(timeout=60)
        assert settled.state == "resolved"
        assert (await session.run("1")).text == "1"
        numbers = [event.number async for event in execution]
        assert numbers == list(range(1, len(numbers) + 1))
        result = await execution.result()
        assert sorted(map(int, (result.stdout + result.stderr).split())) == list(range(600))


async def test_input_is_asked_of_who_runs_the_code(connect):
    async with connect() as client, await client.open_session() as session:
        asked = []

        def answer(prompt):
            asked.append((str(prompt), prompt.password))
            return "Ann"

        code = "import getpass\nname = input('who? ')\nword = getpass.getpass('secret: ')\nprint(name, word)"
        assert (await session.run(code, on_input=answer)).stdout.endswith("Ann Ann\n")
        assert asked == [("who? ", False), ("secret: ", True)]

        async def nobody(prompt):
            raise EOFError

        assert (await session.run("input()", on_input=nobody, check=False)).error.ename == "EOFError"

        def no(prompt):
            raise cob_client.Declined("not today")

        result = await session.run("input()", on_input=no, check=False)
        assert result.error.ename == "InputDeclined" and "not today" in result.error.evalue
        assert not (await session.run("input()", check=False)).ok


async def test_a_question_is_answered_by_its_promise_from_anywhere(connect):
    async with connect() as client, connect() as other, await client.open_session() as session:
        put = asyncio.Event()

        async def never(prompt):
            put.set()
            await asyncio.Event().wait()

        execution = await session.execute("input('now? ')", on_input=never)
        await put.wait()
        (call,) = await other.promises(session.id, kind="call", settled=False)
        assert call["request"]["arguments"]["prompt"] == "now? "
        await other.answer(call["promise"], "yes")
        assert (await execution.result()).text == "'yes'"
        with pytest.raises(cob_client.AlreadySettled):
            await other.answer(call["promise"], "no")


async def test_code_calls_tools(connect):
    async with connect() as client, await client.open_session() as session:
        @session.tool
        def add(a: int, b: int = 1) -> int:
            """Adds."""
            return a + b

        @session.tool(name="fail")
        async def failing():
            raise ValueError("no")

        result = await session.run("import cob\ncob.tools.add(a=40, b=2), cob.tools.add(a=1)")
        assert result.text == "(42, 2)"
        result = await session.run(
            "try:\n  cob.tools.fail()\nexcept cob.ToolError as error:\n  print(error.ename, error.evalue)")
        assert result.stdout == "ValueError no\n"
        await session.unregister_tool("add")
        result = await session.run("cob.tools.call('add', {'a': 1}, timeout=0.1)", check=False)
        assert result.error.ename == "ToolUnavailable"


async def test_values_go_both_ways_through_a_channel(connect):
    async with connect() as client, await client.open_session() as session:
        channel = session.channel("work")
        execution = await session.execute(
            "import cob\nc = cob.channel('work')\nfor item in c:\n  c.send({'got': item})\nc.close()")
        assert [await channel.send(item) for item in (1, None, "three")] == [1, 2, 3]
        assert [await channel.recv() for _ in range(3)] == [{"got": 1}, {"got": None}, {"got": "three"}]
        await channel.close()
        assert (await execution.result()).ok
        again = session.channel("work", from_=2)
        assert [(await again.recv())["got"] for _ in range(2)] == [None, "three"]


async def test_cancel_takes_a_waiting_execution_out_of_the_queue_and_interrupts_a_running_one(connect):
    async with connect() as client, await client.open_session() as session:
        first = await session.execute("print('runs', flush=True)\nimport time; time.sleep(100)")
        await first.next_event()
        second = await session.execute("print('never')")
        assert await second.cancel() == "queued"
        result = await second.result()
        assert result.settlement.state == "rejected_canceled" and result.error.code == "canceled" and result.stdout == ""
        assert await first.cancel() == "running"
        assert (await first.result()).error.ename == "KeyboardInterrupt"


async def test_interrupt_and_restart(connect):
    async with connect() as client, await client.open_session() as session:
        await session.run("x = 1")
        execution = await session.execute("print('runs', flush=True)\nimport time; time.sleep(100)")
        await execution.next_event()
        await session.interrupt()
        assert (await execution.result()).error.ename == "KeyboardInterrupt"
        assert (await session.run("x")).text == "1"
        execution = await session.execute("print('runs', flush=True)\nimport time; time.sleep(100)")
        await execution.next_event()
        await session.restart()
        assert (await execution.result()).error.code == "restarted"
        assert (await session.run("x", check=False)).error.ename == "NameError"


async def test_a_session_is_followed_from_any_execution_on(connect):
    async with connect() as client, connect() as other, await client.open_session() as session:
        await session.run("print('one')")
        found = await other.session(session.id)
        events = found.events()
        await session.run("print('two')")
        seen = []
        async for event in events:
            seen.append(event)
            if [each.kind for each in seen].count("ended") == 2:
                break
        assert [event.text for event in seen if event.kind == "stream"] == ["one\n", "two\n"]
        began = [event for event in seen if event.kind == "began"]
        assert [event.content["code"] for event in began] == ["print('one')", "print('two')"]


async def test_questions_about_code(connect):
    async with connect() as client, await client.open_session() as session:
        await session.run("def needle(x):\n  'Finds.'")
        assert "needle" in (await session.complete("need"))["matches"]
        assert (await session.inspect("needle"))["found"] is True
        assert (await session.is_complete("def f():"))["status"] == "incomplete"
        assert any("Finds" in str(entry[2]) for entry in await session.history(5))


async def test_what_belongs_to_others_is_forbidden(connect):
    async with connect(principal="ann") as ann, connect(principal="bob") as bob, connect() as operator:
        assert ann.principal == "ann"
        async with await ann.open_session() as session:
            with pytest.raises(cob_client.Forbidden):
                await bob.session(session.id)
            execution = await session.execute("1")
            with pytest.raises(cob_client.Forbidden):
                await bob.execution(execution.promise)
            assert session.id not in [view["session_id"] for view in await bob.sessions()]
            assert session.id in [view["session_id"] for view in await operator.sessions()]


async def test_what_is_wrong_is_refused_with_a_code(connect):
    async with connect() as client:
        with pytest.raises(cob_client.RequestError) as caught:
            await client.open_session(limits="memory=much")
        assert caught.value.code == "invalid_limit" and caught.value.hint
        with pytest.raises(cob_client.RequestError) as caught:
            await client.connection.request("session_list", {"colour": "blue"})
        assert caught.value.code == "bad_request" and "colour" in caught.value.message
        with pytest.raises(cob_client.RequestError):
            await client.connection.request("make_coffee")
        with pytest.raises(cob_client.NotFound) as caught:
            await client.session("s99999")
        assert caught.value.code == "unknown_session"


async def test_a_full_session_is_busy_and_taken_again_when_there_is_room(connect):
    async with connect(busy_patience=cob_client.Patience(first=0.05, longest=0.2, total=0.5)) as client:
        async with await client.open_session() as session:
            blocker = await session.execute("print('runs', flush=True)\nimport time; time.sleep(100)")
            await blocker.next_event()
            waiting = [await session.execute("1") for _ in range(255)]
            with pytest.raises(cob_client.Busy) as caught:
                await session.execute("one too many")
            assert caught.value.retry_after is not None
            await waiting[0].cancel()
            await (await session.execute("now")).cancel()


async def test_the_tcp_endpoint_wants_signatures(shared_server):
    tcp = shared_server.described()["tcp"]
    async with cob_client.connect(tcp["endpoint"], key=tcp["key"]) as client:
        await client.ping()
    with pytest.raises(cob_client.ServerNotFound, match="no hello"):
        await cob_client.connect(tcp["endpoint"], key="wrong", hello_timeout=0.5)


async def test_a_killed_server_that_is_started_again_is_only_a_reconnect(own_server, tmp_path):
    async with cob_client.connect(own_server.file) as client:
        session = await client.open_session()
        await session.run("x = 'kept'")
        gate = tmp_path / "gate"
        code = f"""
import os
open({str(tmp_path / "effect")!r}, 'a').write('x')
os.mkfifo({str(gate)!r})
print('before', flush=True)
open({str(gate)!r}).read()
print('after', x)
"""
        execution = await session.execute(code, key="once")
        assert (await execution.next_event()).text == "before\n"
        own_server.kill()
        gate.write_bytes(b"")
        await asyncio.to_thread(own_server.start)
        result = await execution.result()
        assert result.stdout == "before\nafter kept\n" and result.ok
        assert (await session.run("x")).text == "'kept'"
        again = await session.execute(code, key="once")
        assert again.promise == execution.promise and again.joined
        assert client.connection.connections == 2
    assert (tmp_path / "effect").read_text() == "x"


async def test_requests_made_while_there_is_no_server_are_done_by_the_next(own_server):
    async with cob_client.connect(own_server.file) as client:
        session = await client.open_session()
        own_server.kill()
        running = asyncio.ensure_future(session.run("6 * 7"))
        await asyncio.to_thread(own_server.start)
        assert (await running).text == "42"


async def test_whoever_reads_gets_everything_once_however_often_the_server_dies(own_server):
    async with cob_client.connect(own_server.file, window=16) as client:
        session = await client.open_session()
        execution = await session.execute(
            "import sys, time\nfor i in range(600):\n"
            "  print(i, file=(sys.stdout, sys.stderr)[i % 2], flush=True)\n  time.sleep(0.001)")

        async def follow():
            seen = []
            async for event in session.events():
                seen.append(event)
                if event.kind == "ended":
                    return [each for each in seen if each.number]

        following = asyncio.ensure_future(follow())
        events = []
        async for event in execution:
            events.append(event)
            if len(events) in (20, 21, 90):
                own_server.kill()
                await asyncio.to_thread(own_server.start)
        result = await execution.result()
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert sorted(map(int, (result.stdout + result.stderr).split())) == list(range(600))
        assert [(event.number, event.text) for event in await following] == [
            (event.number, event.text) for event in events]
        # What had come before a death was still being read: two of them may have been one.
        assert 2 <= client.connection.connections <= 4


async def test_a_server_that_hangs_is_left_for_the_next(own_server):
    async with cob_client.connect(own_server.file, heartbeat=0.2, hello_timeout=0.2) as client:
        session = await client.open_session()
        own_server.stop_process()
        running = asyncio.ensure_future(session.run("6 * 7"))
        # It takes connections, as far as the system does that for it, and greets nobody.
        while client.connection.is_connected:
            await asyncio.sleep(0.01)
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        assert (await running).text == "42"


async def test_a_question_and_a_tool_call_outlive_the_server(own_server):
    async with cob_client.connect(own_server.file) as client:
        session = await client.open_session()
        asked, may_answer = asyncio.Event(), asyncio.Event()

        @session.tool
        async def approve(what: str) -> bool:
            asked.set()
            await may_answer.wait()
            return True

        execution = await session.execute("import cob\ncob.tools.approve(what='it'), input('name? ')",
                                          on_input=lambda prompt: "Ann")
        await asked.wait()
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        may_answer.set()
        assert (await execution.result()).text == "(True, 'Ann')"


def test_the_blocking_client_does_the_same(shared_server):
    with cob_client.connect_blocking(shared_server.file) as client:
        with client.open_session() as session:
            @session.tool
            def double(x: int) -> int:
                return 2 * x

            execution = session.execute("import cob\nprint(cob.tools.double(x=21), input('? '))", on_input=lambda p: "hi")
            assert "".join(event.text for event in execution if event.kind == "stream").endswith("42 hi\n")
            assert execution.result().ok and execution.wait().state == "resolved"
            with pytest.raises(cob_client.ExecutionError):
                session.run("1/0")
            channel = session.channel("c")
            session.execute("c = cob.channel('c'); c.send(c.recv() + 1)")
            channel.send(1)
            assert channel.recv() == 2
            assert session.info()["session_id"] == session.id and "Blocking" in repr(session)
            assert next(iter(session.events())).kind in ("began", "status")
        assert session.id not in [view["session_id"] for view in client.sessions()]
    with pytest.raises(cob_client.ConnectionLost):
        client.ping()
