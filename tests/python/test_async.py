"""Coroutines, tasks and threads: what goes on between cells, and whose output it is."""
import pytest

THREADS = pytest.mark.cob_only("puts the output of a thread into the newest cell")


def test_top_level_await(kernel):
    run = kernel.run("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 42\nawait f()").ok()
    assert run.result == "42"


def test_top_level_async_for_and_async_with(kernel):
    run = kernel.run("from contextlib import asynccontextmanager\n"
                     "async def numbers():\n    for n in range(3): yield n\n"
                     "@asynccontextmanager\nasync def context():\n    print('in'); yield 5; print('out')\n"
                     "async for n in numbers(): print(n)\n"
                     "async with context() as value: print(value)\n"
                     "[n async for n in numbers()]").ok()
    assert run.stdout == "0\n1\n2\nin\n5\nout\n" and run.result == "[0, 1, 2]"


def test_an_error_in_an_await_is_the_error_of_the_cell(kernel):
    run = kernel.run("async def f(): raise ValueError('inside')\nawait f()")
    assert (run.reply["ename"], run.reply["evalue"]) == ("ValueError", "inside")


def test_names_assigned_beside_an_await_are_kept(kernel):
    kernel.run("import asyncio\nbefore = 1\nawait asyncio.sleep(0)\nafter = 2").ok()
    assert kernel.run("before, after").ok().result == "(1, 2)"


def test_a_loop_is_running_so_that_tasks_can_be_created(kernel):
    kernel.run("import asyncio\nasync def f():\n    return 'done'\ntask = asyncio.create_task(f())").ok()
    assert kernel.run("await task").ok().result == "'done'"


def test_tasks_go_on_between_cells(kernel):
    """The cell in between only waits for a thread, so the ticks happen while the kernel is idle."""
    first = kernel.run("import asyncio\nticks = []\nasync def tick():\n"
                       "    for n in range(5):\n        print('tick', n, flush=True)\n        ticks.append(n)\n        await asyncio.sleep(0.01)\n"
                       "task = asyncio.create_task(tick())", late=True).ok()
    first.printed("tick 4\n")
    assert kernel.run("await task; ticks").ok().result == "[0, 1, 2, 3, 4]"
    assert first.stdout == "".join(f"tick {n}\n" for n in range(5))


def test_the_output_of_a_task_belongs_to_the_cell_that_created_it(kernel):
    first = kernel.run("import asyncio\ngo = asyncio.Event()\nasync def speak():\n    await go.wait()\n    print('from the task')\n"
                       "task = asyncio.create_task(speak())", late=True).ok()
    second = kernel.run("print('second before')\ngo.set()\nawait task\nprint('second after')").ok()
    first.printed("from the task\n")
    assert first.stdout == "from the task\n"
    assert second.stdout == "second before\nsecond after\n"


@THREADS
def test_the_output_of_a_thread_belongs_to_the_cell_that_started_it(kernel):
    first = kernel.run("import threading\ngo = threading.Event()\ndef speak():\n    go.wait()\n    print('from the thread')\n"
                       "thread = threading.Thread(target=speak)\nthread.start()", late=True).ok()
    second = kernel.run("print('second before')\ngo.set()\nthread.join()\nprint('second after')").ok()
    first.printed("from the thread\n")
    assert first.stdout == "from the thread\n"
    assert second.stdout == "second before\nsecond after\n"


@THREADS
def test_threads_started_by_threads_belong_to_the_same_cell(kernel):
    first = kernel.run("import threading\ngo = threading.Event()\n"
                       "def inner():\n    print('from the inner thread')\n"
                       "def outer():\n    go.wait()\n    t = threading.Thread(target=inner); t.start(); t.join()\n"
                       "thread = threading.Thread(target=outer)\nthread.start()", late=True).ok()
    second = kernel.run("go.set()\nthread.join()").ok()
    first.printed("from the inner thread\n")
    assert second.stdout == ""


def test_a_thread_that_prints_while_the_kernel_is_idle_is_heard(kernel):
    run = kernel.run("import threading\nthreading.Timer(0.2, lambda: print('late', flush=True)).start()", late=True).ok()
    run.printed("late\n")


@THREADS
def test_displays_of_a_thread_belong_to_the_cell_that_started_it(kernel):
    first = kernel.run("import threading\ngo = threading.Event()\n"
                       "def show():\n    go.wait()\n    display({'text/plain': 'shown'}, raw=True)\n"
                       "thread = threading.Thread(target=show)\nthread.start()", late=True).ok()
    second = kernel.run("go.set()\nthread.join()").ok()
    shown = kernel.client.await_message("display_data", where=lambda m: m.content["data"].get("text/plain") == "shown"
                                        and m.parent_id in (first.id, second.id))
    assert shown.parent_id == first.id


def test_threads_may_print_at_once_without_breaking_a_line(kernel):
    run = kernel.run("import threading\n"
                     "def work(name):\n    for n in range(200): print(f'{name}-{n}')\n"
                     "threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]\n"
                     "for t in threads: t.start()\nfor t in threads: t.join()").ok()
    for name in range(4):
        assert run.stdout.count(f"{name}-") >= 200
    assert len(run.stdout) == sum(len(f"{name}-{n}\n") for name in range(4) for n in range(200))


def test_an_error_in_a_thread_is_shown(kernel):
    run = kernel.run("import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start(); t.join()").ok()
    assert "ZeroDivisionError" in run.stderr


def test_an_error_in_a_forgotten_task_does_not_end_the_kernel(kernel):
    kernel.run("import asyncio, gc\nasync def fail(): raise ValueError('forgotten')\nt = asyncio.create_task(fail())", late=True).ok()
    kernel.run("await asyncio.sleep(0)\nt = None\ngc.collect()", late=True).ok()
    assert kernel.run("1 + 1").ok().result == "2"


def test_run_in_executor_and_to_thread(kernel):
    run = kernel.run("import asyncio\nawait asyncio.gather(asyncio.to_thread(sum, [1, 2]), "
                     "asyncio.get_running_loop().run_in_executor(None, max, [5, 6]))").ok()
    assert run.result == "[3, 6]"


def test_asyncio_subprocess(kernel):
    run = kernel.run("import asyncio\np = await asyncio.create_subprocess_exec('echo', 'hi', stdout=asyncio.subprocess.PIPE)\n"
                     "(await p.communicate())[0]").ok()
    assert run.result == "b'hi\\n'"


def test_a_server_and_its_client_in_different_cells(kernel):
    kernel.run("import asyncio\nasync def serve(reader, writer):\n    writer.write((await reader.readline()).upper())\n    writer.close()\n"
               "server = await asyncio.start_server(serve, '127.0.0.1')\nport = server.sockets[0].getsockname()[1]").ok()
    run = kernel.run("reader, writer = await asyncio.open_connection('127.0.0.1', port)\nwriter.write(b'hello\\n')\n"
                     "answer = await reader.read()\nwriter.close(); server.close()\nanswer").ok()
    assert run.result == "b'HELLO\\n'"


def test_context_variables_do_not_leak_out_of_tasks(kernel):
    run = kernel.run("import asyncio, contextvars\nvar = contextvars.ContextVar('var', default='outer')\n"
                     "async def f():\n    var.set('inner')\nawait asyncio.create_task(f())\nvar.get()").ok()
    assert run.result == "'outer'"


INSIDE = pytest.mark.cob_only("runs cells inside a running loop")


@INSIDE
def test_asyncio_run_works_in_a_plain_cell(kernel):
    run = kernel.run("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 'ran'\nasyncio.run(f())").ok()
    assert run.result == "'ran'"
    assert kernel.run("asyncio.run(f()) + '!'").ok().result == "'ran!'"


@INSIDE
def test_run_until_complete_works_in_a_plain_cell(kernel):
    run = kernel.run("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 'ran'\n"
                     "asyncio.get_event_loop().run_until_complete(f())").ok()
    assert run.result == "'ran'"
    assert kernel.run("loop = asyncio.new_event_loop()\nanswer = loop.run_until_complete(f())\nloop.close()\nanswer").ok().result == "'ran'"


@INSIDE
def test_tasks_survive_an_asyncio_run_in_between(kernel):
    kernel.run("import asyncio\nasync def slow():\n    await asyncio.sleep(0.05)\n    return 'kept'\ntask = asyncio.create_task(slow())").ok()
    kernel.run("async def nothing(): pass\nasyncio.run(nothing())").ok()
    assert kernel.run("await task").ok().result == "'kept'"
