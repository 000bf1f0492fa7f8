"""An interrupt ends what runs, and gives back a session in which nothing else changed."""
import os
import signal

import pytest

WAITS = {
    "busy loop": "print('ready', flush=True)\nwhile True: pass",
    "time.sleep": "import time\nprint('ready', flush=True)\ntime.sleep(600)",
    "threading.Event": "import threading\nprint('ready', flush=True)\nthreading.Event().wait()",
    "queue.get": "import queue\nprint('ready', flush=True)\nqueue.Queue().get()",
    "lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nprint('ready', flush=True)\nlock.acquire()",
    "subprocess.run": "import subprocess\nprint('ready', flush=True)\nsubprocess.run(['sleep', '600'])",
    "socket": "import socket\na, b = socket.socketpair()\nprint('ready', flush=True)\na.recv(1)",
    "pipe": "import os\nr, w = os.pipe()\nprint('ready', flush=True)\nos.read(r, 1)",
    "print loop": "print('ready', flush=True)\nwhile True: print('x' * 100)",
    "generator": "print('ready', flush=True)\nfor _ in iter(int, 1): pass",
    "nested try": "print('ready', flush=True)\ntry:\n    while True: pass\nfinally:\n    print('finally')",
}


def check_still_usable(kernel):
    assert kernel.run("1 + 1").ok().result == "2"
    assert kernel.run("survivor").ok().result == "[1, 2, 3]"


@pytest.mark.parametrize("code", WAITS.values(), ids=WAITS)
def test_interrupt_ends(kernel, code):
    kernel.run("survivor = [1, 2, 3]").ok()
    run = kernel.execute(code).printed("ready\n")
    kernel.interrupt()
    run.wait()
    assert run.status == "error"
    assert run.reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    check_still_usable(kernel)


@pytest.mark.cob_only("misses an interrupt that comes just before the await")
@pytest.mark.parametrize("awaited", ["asyncio.sleep(600)", "asyncio.Event().wait()", "asyncio.gather(asyncio.sleep(600), asyncio.sleep(600))"])
def test_interrupt_ends_a_top_level_await(kernel, awaited):
    kernel.run("survivor = [1, 2, 3]").ok()
    run = kernel.execute(f"import asyncio\nprint('ready', flush=True)\nawait {awaited}").printed("ready\n")
    kernel.interrupt()
    assert run.wait().reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    check_still_usable(kernel)


@pytest.mark.cob_only("runs cells inside a running loop")
@pytest.mark.parametrize("body", ["await asyncio.sleep(600)", "await asyncio.gather(*[asyncio.sleep(600) for _ in range(5)])"])
def test_interrupt_ends_asyncio_run(kernel, body):
    kernel.run("survivor = [1, 2, 3]").ok()
    run = kernel.execute(f"import asyncio\nasync def main():\n    print('ready', flush=True)\n    {body}\nasyncio.run(main())").printed("ready\n")
    kernel.interrupt()
    assert run.wait().reply["ename"] == "KeyboardInterrupt"
    check_still_usable(kernel)


@pytest.mark.cob_only("runs cells inside a running loop")
def test_interrupt_ends_a_busy_coroutine_in_asyncio_run(kernel):
    kernel.run("survivor = [1, 2, 3]").ok()
    run = kernel.execute("import asyncio\nasync def main():\n    print('ready', flush=True)\n    while True: pass\nasyncio.run(main())").printed("ready\n")
    kernel.interrupt()
    assert run.wait().reply["ename"] == "KeyboardInterrupt"
    check_still_usable(kernel)


def test_interrupt_by_message_is_answered_and_works(kernel):
    kernel.run("survivor = [1, 2, 3]").ok()
    run = kernel.execute(WAITS["busy loop"]).printed("ready\n")
    assert kernel.ask("interrupt_request", channel="control") == {"status": "ok"}
    assert run.wait().reply["ename"] == "KeyboardInterrupt"
    check_still_usable(kernel)


def test_interrupt_by_signal_to_the_process_group_works(kernel):
    kernel.run("survivor = [1, 2, 3]").ok()
    run = kernel.execute(WAITS["time.sleep"]).printed("ready\n")
    os.killpg(os.getpgid(kernel.pid), signal.SIGINT)
    assert run.wait().reply["ename"] == "KeyboardInterrupt"
    check_still_usable(kernel)


def test_what_was_printed_before_the_interrupt_is_kept(kernel):
    run = kernel.execute("for n in range(100): print(n)\nprint('ready')\nwhile True: pass").printed("ready\n")
    kernel.interrupt()
    assert run.wait().stdout == "".join(f"{n}\n" for n in range(100)) + "ready\n"


def test_code_may_swallow_one_interrupt(kernel):
    run = kernel.execute("import time\n"
                         "try:\n    print('ready', flush=True)\n    time.sleep(600)\n"
                         "except KeyboardInterrupt:\n    print('swallowed', flush=True)\n"
                         "'went on'").printed("ready\n")
    kernel.interrupt()
    assert run.wait().ok().result == "'went on'"
    assert run.stdout == "ready\nswallowed\n"


def test_a_second_interrupt_ends_code_that_swallowed_the_first(kernel):
    kernel.run("survivor = [1, 2, 3]").ok()
    run = kernel.execute("import time\n"
                         "try:\n    print('ready', flush=True)\n    time.sleep(600)\n"
                         "except KeyboardInterrupt:\n    print('swallowed', flush=True)\n"
                         "time.sleep(600)").printed("ready\n")
    kernel.interrupt()
    run.printed("swallowed\n")
    kernel.interrupt()
    assert run.wait().reply["ename"] == "KeyboardInterrupt"
    check_still_usable(kernel)


def test_an_interrupt_while_idle_changes_nothing(kernel):
    kernel.run("survivor = [1, 2, 3]").ok()
    for _ in range(5):
        os.killpg(os.getpgid(kernel.pid), signal.SIGINT)
        assert kernel.ask("interrupt_request", channel="control")["status"] == "ok"
        assert kernel.ask("kernel_info_request")["status"] == "ok"
    check_still_usable(kernel)


@pytest.mark.cob_only("an interrupt that comes too late hits the next cell")
def test_interrupts_never_hit_a_later_cell(kernel):
    """Interrupts race with the end of short cells; the cell after must not pay for it."""
    for n in range(30):
        run = kernel.execute("sum(range(1000))")
        kernel.interrupt_by_message()
        run.wait()
        assert kernel.run(f"{n}").ok().result == str(n)


def test_an_interrupt_aborts_the_queue(kernel):
    running = kernel.execute(WAITS["time.sleep"]).printed("ready\n")
    queued = [kernel.execute("1") for _ in range(3)]
    if kernel.info["implementation"] == "cob":
        # Shell and control are two connections: the answer says that what was sent before it has arrived.
        assert kernel.ask("kernel_info_request")["status"] == "ok"
    kernel.interrupt()
    assert running.wait().reply["ename"] == "KeyboardInterrupt"
    assert [run.wait().status for run in queued] == ["aborted"] * 3


def test_many_interrupts_in_a_row_leave_a_usable_session(kernel):
    kernel.run("survivor = [1, 2, 3]").ok()
    for _ in range(20):
        run = kernel.execute(WAITS["time.sleep"]).printed("ready\n")
        kernel.interrupt()
        assert run.wait().reply["ename"] == "KeyboardInterrupt"
    check_still_usable(kernel)


def test_children_of_an_interrupted_cell_are_interrupted_too(kernel):
    run = kernel.execute("import subprocess\n"
                         "child = subprocess.Popen(['sleep', '600'])\n"
                         "print('ready', flush=True)\nchild.wait()").printed("ready\n")
    kernel.interrupt()
    run.wait()
    # Popen says 0 if the interrupt came between the end of the child and the note that wait() makes of it.
    assert kernel.run("child.wait(60)").ok().result in ("-2", "0")


def test_an_interrupted_await_does_not_go_on_later(kernel):
    run = kernel.execute("import asyncio\nasync def slow():\n    print('ready', flush=True)\n    await asyncio.sleep(0.3)\n    print('went on')\n"
                         "await slow()", late=True).printed("ready\n")
    kernel.interrupt()
    run.wait()
    kernel.run("await asyncio.sleep(0.6)").ok()
    assert "went on" not in run.stdout


def test_the_traceback_of_an_interrupt_names_the_line(kernel):
    run = kernel.execute("import time\ndef deep():\n    print('ready', flush=True)\n    time.sleep(600)  # here\ndeep()").printed("ready\n")
    kernel.interrupt()
    assert "# here" in "".join(run.wait().reply["traceback"])
