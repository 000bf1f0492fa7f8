"""The core of what a kernel does, in every Python of this machine."""
import pytest

from support import target
from support.outputs import without_colour

NAMES = ("py310", "py311", "py312", "py313", "system")


@pytest.fixture(params=NAMES)
def python(request, shared, launch):
    name = request.param
    path = target.pythons().get(name)
    if path is None:
        pytest.skip(f"{name}: there is no such Python on this machine")
    if not target.IS_COB:
        pytest.skip(f"{name}: ipykernel is not installed there")
    if name not in shared or not shared[name].is_usable():
        shared[name] = launch(name)
    return shared[name]


def test_it_is_the_python_that_was_asked_for(python):
    major, minor = python.value("list(__import__('sys').version_info[:2])")
    assert python.name in (f"py{major}{minor}", "system")
    assert python.info["language_info"]["version"] == python.value("'.'.join(map(str, __import__('sys').version_info[:3]))")
    assert python.run("import sys\nsys.executable").ok().result == repr(target.pythons()[python.name])


def test_results_prints_and_errors(python):
    run = python.run("print('printed')\n6 * 7").ok()
    assert run.outputs.plain() == [("stdout", "printed\n"), ("execute_result", "42")]
    assert python.run("1/0").reply["ename"] == "ZeroDivisionError"
    assert "Cell In[" in without_colour("".join(python.run("def f(): g()\nf()").error["traceback"]))


def test_order_of_prints_c_output_and_children(python):
    run = python.run("import os, subprocess, sys\nfor n in range(3):\n    print('a')\n    os.write(1, b'b\\n')\n    subprocess.run(['echo', 'c'])\n"
                     "    print('d', file=sys.stderr)").ok()
    assert run.outputs.plain() == [("stdout", "a\nb\nc\n"), ("stderr", "d\n")] * 3


def test_top_level_await_and_tasks(python):
    python.run("import asyncio\nasync def f(): return 'done'\ntask = asyncio.create_task(f())").ok()
    assert python.run("await task").ok().result == "'done'"
    assert python.run("asyncio.run(f())").ok().result == "'done'"


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(600)", "import asyncio; await asyncio.sleep(600)",
                                  "import asyncio; asyncio.run(asyncio.sleep(600))", "import subprocess; subprocess.run(['sleep', '600'])"])
def test_interrupts(python, code):
    python.run("survivor = 1").ok()
    run = python.execute(f"print('ready', flush=True)\n{code}").printed("ready\n")
    python.interrupt()
    assert run.wait().reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert python.run("survivor").ok().result == "1"


def test_input(python):
    run = python.execute("input('? ')")
    python.client.answer(run.asked(), "answer")
    assert run.wait().ok().result == "'answer'"
    run = python.execute("import getpass; getpass.getpass()")
    assert run.asked().content["password"] is True
    python.interrupt()
    assert run.wait().reply["ename"] == "KeyboardInterrupt"


def test_displays(python):
    run = python.run("class Rich:\n    def _repr_html_(self): return '<b>x</b>'\n    def __repr__(self): return 'plain'\nprint('before')\ndisplay(Rich())\nRich()").ok()
    assert [kind for kind, _ in run.outputs.merged()] == ["stdout", "display_data", "execute_result"]
    assert run.outputs.result == {"text/plain": "plain", "text/html": "<b>x</b>"}


def test_completion_inspection_and_completeness(python):
    python.run("completable_name = 1").ok()
    assert "completable_name" in python.ask("complete_request", {"code": "completable_n", "cursor_pos": 13})["matches"]
    assert python.ask("inspect_request", {"code": "len", "cursor_pos": 3, "detail_level": 0})["found"]
    assert [python.ask("is_complete_request", {"code": code})["status"] for code in ("1", "f(", "x = = 1")] == ["complete", "incomplete", "invalid"]


def test_history_and_underscores(python):
    first = python.run("'kept'").ok()
    assert python.run(f"_, Out[{first.count}], In[{first.count}]").ok().result == "('kept', 'kept', \"'kept'\")"
    tail = python.ask("history_request", {"hist_access_type": "tail", "n": 1, "raw": True, "output": False})["history"]
    assert tail[0][2].startswith("_, Out[")


def test_fork_and_multiprocessing(python):
    run = python.run("import multiprocessing\ndef square(n): return n * n\n"
                     "with multiprocessing.get_context('fork').Pool(2) as pool: got = pool.map(square, [1, 2, 3])\ngot").ok()
    assert run.result == "[1, 4, 9]"


def test_threads_speak_under_the_cell_that_started_them(python):
    first = python.run("import threading\ngo = threading.Event()\nthread = threading.Thread(target=lambda: (go.wait(), print('late')))\nthread.start()", late=True).ok()
    second = python.run("go.set()\nthread.join()").ok()
    first.printed("late\n")
    assert second.stdout == ""


def test_fifty_thousand_lines(python):
    run = python.run("for n in range(50_000): print(n)").ok()
    assert run.stdout == "".join(f"{n}\n" for n in range(50_000))


def test_a_lost_worker_is_replaced(python):
    assert python.run("import os; os._exit(3)").reply["ename"] == "WorkerLost"
    assert python.run("1 + 1").ok().result == "2"


def test_shutdown(python):
    python.client.send("control", "shutdown_request", {"restart": False})
    assert python.wait_exit() == 0
