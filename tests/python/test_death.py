"""When the process that runs the code dies: the cell says so, and the next one runs in a fresh namespace."""
import os
import signal

import pytest

pytestmark = pytest.mark.cob_only("dies with the code")

DEATHS = {
    "os._exit": "import os; os._exit(3)",
    "os._exit(0)": "import os; os._exit(0)",
    "kill -9": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "import os; os.abort()",
    "null pointer": "import ctypes; ctypes.string_at(0)",
}


@pytest.mark.parametrize("code", DEATHS.values(), ids=DEATHS)
@pytest.mark.parametrize("name", ["rich", "bare"])
def test_a_lost_worker_is_reported_and_replaced(own, name, code):
    kernel = own(name)
    kernel.run("forgotten = 1").ok()
    run = kernel.run(f"print('printed before')\n{code}")
    assert run.status == "error"
    assert run.reply["ename"] == run.error["ename"] == "WorkerLost"
    assert run.stdout == "printed before\n"
    after = kernel.run("'alive'").ok()
    assert after.result == "'alive'" and after.count == run.count + 1
    assert kernel.run("forgotten").reply["ename"] == "NameError"


def test_the_front_end_is_told_of_the_restart(own):
    kernel = own("bare")
    run = kernel.run("import os; os._exit(3)")
    kernel.run("1 + 1").ok()
    states = [m.content["execution_state"] for m in kernel.client.messages(types=("status",))]
    assert "restarting" in states
    assert "starting" in states[states.index("restarting"):]
    assert run.status == "error"


def test_output_that_nobody_flushed_is_kept(own):
    kernel = own("bare")
    run = kernel.run("import os, sys\nsys.stdout.write('no newline')\nsys.stderr.write('on stderr')\nos._exit(1)")
    assert run.stdout == "no newline" and run.stderr.startswith("on stderr")


def test_a_worker_killed_from_outside_is_replaced(own):
    kernel = own("bare")
    worker = kernel.worker()
    assert worker.pid != kernel.pid
    run = kernel.execute("print('ready', flush=True)\nwhile True: pass").printed("ready\n")
    os.kill(worker.pid, signal.SIGKILL)
    assert run.wait().reply["ename"] == "WorkerLost"
    assert kernel.run("1 + 1").ok().result == "2"


def test_a_worker_killed_while_idle_is_replaced(own):
    kernel = own("bare")
    kernel.run("forgotten = 1").ok()
    start = len(kernel.client.log)
    os.kill(kernel.worker().pid, signal.SIGKILL)
    kernel.client.await_message("status", where=lambda m: m.content["execution_state"] == "restarting", start=start)
    assert kernel.run("1 + 1").ok().result == "2"
    assert kernel.run("forgotten").reply["ename"] == "NameError"


def test_what_was_queued_behind_a_lost_worker_is_aborted(own):
    kernel = own("bare")
    runs = [kernel.execute("import os, time; time.sleep(0.2); os._exit(1)"), kernel.execute("1"), kernel.execute("2")]
    assert [run.wait().status for run in runs] == ["error", "aborted", "aborted"]
    assert kernel.run("3").ok().result == "3"


def test_a_worker_that_dies_while_asking_takes_its_question_along(own):
    kernel = own("bare")
    worker = int(kernel.run("import os; os.getpid()").ok().result)
    run = kernel.execute("input('?')")
    request = run.asked()
    os.kill(worker, signal.SIGKILL)
    assert run.wait().reply["ename"] == "WorkerLost"
    kernel.client.answer(request, "too late")
    assert kernel.run("1 + 1").ok().result == "2"


def test_workers_may_be_lost_again_and_again(own):
    kernel = own("bare")
    for n in range(5):
        assert kernel.run("import os; os._exit(1)").reply["ename"] == "WorkerLost"
        assert kernel.run(f"{n}").ok().result == str(n)


def test_the_history_outlives_the_worker(own):
    kernel = own("bare")
    kernel.run("remembered = 1").ok()
    kernel.run("import os; os._exit(1)")
    tail = kernel.ask("history_request", {"hist_access_type": "tail", "n": 5, "raw": True, "output": False})["history"]
    assert "remembered = 1" in [entry[2] for entry in tail]


def test_children_of_a_lost_worker_do_not_stay(own):
    import psutil
    kernel = own("bare")
    run = kernel.run("import os, subprocess\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True)\nos._exit(1)")
    child = int(run.stdout)
    try:
        psutil.wait_procs([psutil.Process(child)], timeout=30)
    except psutil.NoSuchProcess:
        pass
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_control_answers_while_the_worker_is_replaced(own):
    kernel = own("bare")
    run = kernel.execute("import os; os._exit(1)")
    assert kernel.ask("kernel_info_request", channel="control")["status"] == "ok"
    run.wait()


def test_memory_that_cannot_be_had_is_an_error_of_the_cell(own):
    kernel = own("bare")
    kernel.run("kept = 1").ok()
    assert kernel.run("bytearray(1 << 48)").reply["ename"] == "MemoryError"
    assert kernel.run("kept").ok().result == "1"


def test_closing_the_streams_does_not_end_the_session(own):
    kernel = own("bare")
    kernel.run("import os\nos.close(1)\nos.close(2)")
    assert kernel.run("1 + 1").ok().result == "2"


def test_closing_every_descriptor_is_survived(own):
    kernel = own("bare")
    kernel.run("import os\nos.closerange(3, 1024)")
    assert kernel.run("1 + 1").ok().result == "2"
