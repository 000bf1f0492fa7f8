"""Sessions in JavaScript, against the real server."""
import asyncio

import pytest

import cob_client
from test_examples import run


def opened(client, **options):
    return client.open_session(language="javascript", **options)


async def test_code_runs_and_its_results_are_rich(connect):
    async with connect() as client, await opened(client, name="js") as session:
        assert (await session.info())["language"] == "javascript"
        result = await session.run("let x: number = await Promise.resolve(41); console.log('out'); console.error('err'); x + 1")
        assert (result.stdout, result.stderr, result.text, result.ok) == ("out\n", "err\n", "42", True)
        assert (await session.run("cob.html`<b>${x}</b>`")).html == "<b>41</b>"
        with pytest.raises(cob_client.ExecutionError) as caught:
            await session.run("null.x")
        assert caught.value.result.error.ename == "TypeError"
        # The variables are those of the session, and what was declared may be declared again.
        assert (await session.run("const x = 5; x")).text == "5"


async def test_a_worker_that_was_forked_has_the_variables_of_its_session(connect):
    async with connect() as client:
        for value in ["one", "two"]:  # at the latest the second one is forked
            async with await opened(client, env={"MINE": value}) as session:
                assert (await session.run("[cob.env.MINE, cob.env.HOME === cob.cwd()].join()")).text == f'"{value},true"'
                branch, = await session.fork(1)
                assert (await branch.run("cob.env.MINE")).text == f'"{value}"'
                await branch.close()


async def test_other_names_of_the_language_are_recorded_as_one(connect):
    async with connect() as client, await client.open_session(language="ts", key="one") as session:
        assert (await session.info())["language"] == "javascript"
        again = await client.open_session(language="javascript", key="one")
        assert again.id == session.id


async def test_what_there_is_not_is_refused_with_what_there_is(connect):
    async with connect() as client:
        with pytest.raises(cob_client.RequestError, match="there are: python, javascript"):
            await client.open_session(language="cobol")
        with pytest.raises(cob_client.RequestError, match="no Python interpreter"):
            await opened(client, python="/usr/bin/python3")
        with pytest.raises(cob_client.RequestError, match="permissions"):
            await client.open_session(permissions={"read": ["."]})


async def test_code_reads_what_is_permitted(connect, tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    reading = f"cob.readTextFile({str(tmp_path / 'a.txt')!r})"
    async with connect() as client:
        async with await opened(client, permissions={"read": [str(tmp_path)]}) as session:
            assert (await session.run(f"await {reading}")).text == '"hello"'
            assert (await session.info())["environment"]["permissions"]["read"] == [str(tmp_path)]
        async with await opened(client) as session:
            assert not (await session.run(f"await {reading}", check=False)).ok
        # One folder may be named without a list, and is not taken for a list of characters, of which `/` is one.
        async with await opened(client, permissions={"read": str(tmp_path)}) as session:
            assert (await session.info())["environment"]["permissions"]["read"] == [str(tmp_path)]


async def test_a_killed_server_leaves_the_session_as_it_was(own_server):
    server = own_server
    async with cob_client.connect(server.file) as client:
        session = await opened(client, name="kept")
        await session.run("let x = [1, 2]")
        server.kill()
        server.start()
        # Its worker went on, and so do its variables.
        assert (await session.run("x.push(3); x")).text == "[ 1, 2, 3 ]"
        assert (await session.info())["language"] == "javascript"
        await session.close()


COUNTING = {
    # Code that holds the processor all the time …
    "computing": "for (const since = Date.now(); Date.now() < since + 3;);",
    # … and code that waits in between, while timers of an older cell are running too.
    "awaiting": "await new Promise((done) => setTimeout(done, 3))",
}


@pytest.mark.parametrize("kind", COUNTING)
async def test_code_runs_on_while_its_server_is_dead_and_nothing_it_prints_is_lost(own_server, kind):
    async with cob_client.connect(own_server.file) as client:
        session = await opened(client)
        await session.run("let kept = 41, ticks = 0; setInterval(() => ticks++, 1); undefined")
        code = f"kept += 1; for (let n = 0; n < 200; n++) {{ (n % 2 ? console.error : console.log)(n); {COUNTING[kind]} }}; 'end'"
        execution = await session.execute(code, key="once")
        assert (await execution.next_event()).text.startswith("0\n")
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        result = await execution.result()
        assert result.ok and result.text == '"end"'
        assert [list(map(int, text.split())) for text in (result.stdout, result.stderr)] == [
            list(range(0, 200, 2)), list(range(1, 200, 2))]
        again = await session.execute(code, key="once")
        assert again.promise == execution.promise and again.joined
        assert (await session.run("kept")).text == "42"
        assert client.connection.connections == 2


async def test_timers_go_on_while_nothing_runs_and_nobody_serves(own_server):
    async with cob_client.connect(own_server.file) as client:
        session = await opened(client)
        await session.run("let ticks = 0, reach = () => {}; setInterval(() => { ticks++; reach() }, 1); undefined")
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        code = "const before = ticks; await new Promise((done) => reach = () => ticks >= before + 3 && done(0)); 'ticked'"
        assert (await session.run(code)).text == '"ticked"'


@pytest.mark.parametrize("question", ["prompt('name? ')", "await cob.tools.name()"])
async def test_code_that_waits_for_an_answer_gets_it_of_the_next_server(own_server, question):
    async with cob_client.connect(own_server.file) as client:
        session = await opened(client)
        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def answered(*_):
            asked.set()
            await may_answer.wait()
            return "Ann"

        session.tool(answered, name="name")
        execution = await session.execute(f"const name = {question}; console.log('hello', name)", on_input=answered)
        await asked.wait()
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        may_answer.set()
        assert (await execution.result()).stdout == "hello Ann\n"


async def test_branches_of_a_session_have_its_language(connect):
    async with connect() as client, await opened(client) as session:
        await session.run("let x = 1")
        (branch,) = await session.fork(1)
        async with branch:
            assert (await branch.info())["language"] == "javascript"
            assert (await branch.run("x += 1; x")).text == "2"
        assert (await session.run("x")).text == "1"


def test_an_agent_works_in_javascript(shared_server):
    shown = run("javascript_agent", server=shared_server)
    assert "2 orders\n" in shown and "text/html" in shown
    assert shown.endswith("a fifth off tea: 14\none cake is free: 11.5\nas it was: 15.5\n")
