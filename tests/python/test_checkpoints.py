"""Checkpoints: cells can be undone, and what had to be killed gives back what was there before."""
import shutil

import pytest

from support import target

pytestmark = pytest.mark.cob_only("keeps no checkpoints")


@pytest.fixture(scope="module")
def automatic(kernelspecs):
    """Kernelspecs whose sessions take checkpoints by themselves: `rich-auto`, `bare-auto` and so on."""
    for original in [folder for folder in kernelspecs.iterdir() if not folder.name.endswith("-auto")]:
        folder = kernelspecs / f"{original.name}-auto"
        if not folder.exists():
            shutil.copytree(original, folder)
            target.add_arguments(folder, ["--checkpoints", "auto", "--interrupt-grace", "0.3"])


@pytest.fixture(scope="module")
def started(automatic, launch):
    """The module's kernels by name."""
    kernels = {}

    def get(name):
        if name not in kernels or not kernels[name].is_usable():
            kernels[name] = launch(f"{name}-auto")
        return kernels[name]

    return get


@pytest.fixture
def undoable(started):
    """Of an environment with IPython, numpy, matplotlib."""
    return started("rich")


@pytest.fixture(params=["rich", "bare"])
def either(request, started):
    """With IPython and without."""
    return started(request.param)


def findings(kernel):
    """Kind → (text, whether it blocks) of what a checkpoint taken now would not hold."""
    found = kernel.value("__import__('cob.freezing').freezing.before_freeze()")
    kinds = [kind for kind, _, _ in found]
    assert len(kinds) == len(set(kinds))
    return {kind: (text, blocks) for kind, text, blocks in found}


# What a checkpoint does not hold ---------------------------------------------


def test_nothing_is_in_the_way_of_a_plain_session(own):
    kernel = own("rich")
    kernel.run("import json, re, subprocess, threading, socket\nx = [1]\nsubprocess.run('true')").ok()
    assert findings(kernel) == {}


def test_threads_and_children_block_and_are_named(kernel):
    kernel.run("import threading, subprocess\nstop = threading.Event()\n"
               "waiter = threading.Thread(target=stop.wait, name='waiter')\nwaiter.start()\n"
               "cat = subprocess.Popen(['cat'], stdin=subprocess.PIPE)").ok()
    found = findings(kernel)
    assert found["thread"][1] and "waiter" in found["thread"][0]
    assert found["child"][1] and "(cat)" in found["child"][0]
    kernel.run("stop.set(); waiter.join(); cat.communicate()").ok()
    assert not {"thread", "child"} & findings(kernel).keys()
    assert kernel.run("cat.returncode").ok().result == "0"


def test_what_is_shared_with_copies_is_told_and_does_not_block(kernel, tmp_path):
    kernel.run(f"import socket, sqlite3\nserver = socket.socket()\nlog = open({str(tmp_path / 'log')!r}, 'w')\n"
               f"db = sqlite3.connect({str(tmp_path / 'db')!r})\nreading = open('/etc/passwd')").ok()
    found = findings(kernel)
    assert {kind: blocks for kind, (_, blocks) in found.items()} == {"socket": False, "file": False, "connection": False}
    assert "server (" in found["socket"][0] and "log (" in found["file"][0] and " db " in found["connection"][0]
    assert "passwd" not in found["file"][0]
    kernel.run("server.close(); log.close(); db.close(); del server, log, db").ok()
    assert findings(kernel) == {}


def test_what_was_written_to_a_file_is_flushed_so_that_copies_do_not_write_it_again(kernel, tmp_path):
    path = tmp_path / "log"
    kernel.run(f"log = open({str(path)!r}, 'w')\nlog.write('once')").ok()
    assert path.read_text() == ""
    findings(kernel)
    assert path.read_text() == "once"
    kernel.run("log.close()").ok()


def test_a_gpu_in_use_blocks(own):
    kernel = own("bare")
    kernel.run("import sys, types\nsys.modules['torch'] = types.ModuleType('torch')\n"
               "sys.modules['torch.cuda'] = cuda = types.ModuleType('torch.cuda')\ncuda._initialized = False").ok()
    assert "cuda" not in findings(kernel)
    kernel.run("cuda._initialized = True").ok()
    assert findings(kernel)["cuda"][1]


def test_threads_with_nothing_to_do_make_way(kernel):
    """The loop's own pool, which every lookup of a host name starts."""
    kernel.run("import asyncio, threading\nassert await asyncio.to_thread(int) == 0\nassert threading.active_count() == 2").ok()
    assert findings(kernel) == {}
    kernel.run("assert threading.active_count() == 1\nassert await asyncio.to_thread(int) == 0").ok()


def test_the_monitor_of_progress_bars_makes_way(own):
    kernel = own("rich")
    kernel.run("import threading, tqdm\nbar = tqdm.tqdm(total=3)\nassert threading.active_count() == 2").ok()
    assert findings(kernel) == {}
    kernel.run("assert threading.active_count() == 1\nbar.close()\nbar = tqdm.tqdm(total=3)\nassert threading.active_count() == 2\nbar.close()").ok()


def test_garbage_among_what_was_frozen_goes_in_the_end(kernel):
    kernel.run("import gc, weakref\nfrom cob import freezing\nfreezing.unfreeze(); freezing.before_freeze()\nclass Node: pass\n"
               "nodes = []\nfor n in range(60_000):\n    node = Node(); node.itself = node; nodes.append(node)\n"
               "last = weakref.ref(node)\nfreezing.before_freeze()\ndel node, nodes\ngc.collect()\nassert last() is not None\n"
               "for _ in range(freezing.LOOK_EVERY):\n    freezing.before_freeze()\nassert last() is None and gc.get_freeze_count() > 0\n"
               "freezing.unfreeze()\nassert gc.get_freeze_count() == 0").ok()


def test_looking_for_findings_runs_no_code_of_the_user(kernel):
    kernel.run("""
import io, socket, subprocess
ran = []
class Meta(type):
    def __eq__(self, other): ran.append("eq")
    __hash__ = type.__hash__
    __name__ = __module__ = __mro__ = property(lambda self: ran.append("meta"))
    def mro(cls): return type.mro(cls)
class Odd(metaclass=Meta):
    def __getattr__(self, name): ran.append(name); raise AttributeError(name)
    def __repr__(self): ran.append("repr"); return ""
    __class__ = property(lambda self: ran.append("class"))
class File(io.FileIO):
    def fileno(self): ran.append("fileno"); return 1
    def __getattribute__(self, name): ran.append(name); return super().__getattribute__(name)
class Socket(socket.socket):
    def fileno(self): ran.append("fileno"); return 1
odd, file, sock = Odd(), File("/dev/null"), Socket()
del ran[:]
""").ok()
    findings(kernel)
    assert kernel.value("ran") == []
    kernel.run("sock.close(); file.close(); del odd, file, sock").ok()


# Going back ------------------------------------------------------------------


def test_a_cell_is_undone(either):
    either.run("x = [1]").ok()
    before = either.run("import os; os.getpid()").ok()
    either.run("x.append(2); y = 3").ok()
    run = either.run("import cob; cob.undo()").ok()
    assert f"before In [{before.count + 1}]" in run.stdout and "not undone" in run.stdout
    assert either.run("x").ok().result == "[1]"
    assert either.run("y").reply["ename"] == "NameError"
    assert either.run("os.getpid()").ok().result != before.result


def test_several_cells_are_undone(either):
    for n in range(4):
        either.run(f"n = {n}").ok()
    either.run("import cob; cob.undo(2)").ok()
    assert either.run("n").ok().result == "1"


def test_a_cell_that_fails_after_it_asked_is_undone_all_the_same(either):
    either.run("x = 'before'").ok()
    either.run("x = 'after'").ok()
    assert either.run("import cob; cob.undo(); 1 / 0").reply["ename"] == "ZeroDivisionError"
    assert either.run("x").ok().result == "'before'"


def test_a_label_is_gone_back_to_again_and_again(either):
    run = either.run("import cob\nx = 'first'\nname = cob.checkpoint('start')").ok()
    name = either.run("name").ok().result.strip("'")
    assert f"{name} (start) is taken when this cell ends\n" == run.stdout
    for _ in range(3):
        either.run("x = 'later'").ok()
        either.run("cob.restore('start')").ok()
        assert either.run("x").ok().result == "'first'"
    either.run("x = 'later'").ok()
    either.run(f"cob.restore({name!r})").ok()
    assert either.run("x").ok().result == "'first'"


def test_checkpoints_are_listed_as_a_table(either):
    either.run("import cob\ncob.checkpoint('listed')").ok()
    run = either.run("cob.checkpoints()").ok()
    lines = run.result.splitlines()
    assert lines[0].split() == ["before", "taken", "kept", "in", "size"]
    [line] = [line for line in lines if line.endswith("listed")]
    assert line.startswith("s") and f"In [{run.count}]" in line and "memory" in line
    assert either.run("[c.name for c in cob.checkpoints() if c.label == 'listed'][0]").ok().result.strip("'") == line.split()[0]


def test_an_unknown_checkpoint_is_an_error_of_the_cell(either):
    run = either.run("x = 1; import cob; cob.restore('no such label')")
    assert run.reply["ename"] == "CheckpointError" and run.reply["evalue"]
    run = either.run("try:\n    cob.restore('s1.k99999')\nexcept cob.CheckpointError as error:\n    print(error.code)").ok()
    assert run.stdout == "unknown_checkpoint\n"
    assert either.run("x").ok().result == "1"


def test_magics(either):
    either.run("x = 1").ok()
    assert "(magic) is taken" in either.run("%checkpoint magic").ok().stdout
    either.run("x = 2").ok()
    assert "(magic)" in either.run("%restore magic").ok().stdout
    assert either.run("x").ok().result == "1"
    either.run("x = 3").ok()
    either.run("%undo").ok()
    assert either.run("x").ok().result == "1"
    assert "magic" in either.run("%checkpoints").ok().result
    wrong = either.run("%undo everything")
    assert wrong.status == "error" and "%undo [CELLS]" in str(wrong.reply["traceback"])


def test_magics_of_ipython_know_them(undoable):
    run = undoable.run("%time x = 5\n%checkpoint with ipython").ok()
    assert "(with ipython) is taken" in run.stdout
    assert "%checkpoint" in undoable.run("%lsmagic").ok().result


def test_code_that_cannot_be_interrupted_gives_back_the_state_before_the_cell(either):
    either.run("x = 'kept'").ok()
    run = either.execute("import ctypes, signal\nx = 'lost'\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
                         "print('stuck', flush=True)\nctypes.PyDLL(None).sleep(600)").printed("stuck\n")
    either.interrupt()
    assert run.wait().reply["ename"] == "InterruptedByForce"
    after = either.run("x").ok()
    assert after.result == "'kept'" and after.count == run.count + 1


def test_a_crash_gives_back_the_state_before_the_cell(either):
    either.run("x = 'kept'").ok()
    run = either.run("x = 'lost'; import os; os.kill(os.getpid(), 11)")
    assert run.reply["ename"] == "WorkerLost"
    assert either.run("x").ok().result == "'kept'"


# What goes on ----------------------------------------------------------------


def test_numbers_of_cells_go_on(either):
    first = either.run("'one'").ok()
    either.run("'two'").ok()
    undo = either.run("import cob; cob.undo()").ok()
    run = either.run("'three'").ok()
    assert run.count == undo.count + 1 == first.count + 3
    n = first.count
    assert either.value(f"In[{n}], In[{n + 1}], In[{n + 2}], In[{n + 3}]") == ("'one'", "", "", "'three'")
    assert either.value(f"Out[{n}], Out[{n + 3}], _{n}, _, _i, {n + 1} in Out") == ("one", "three", "one", "three", "'one'", False)


def test_ipython_goes_on(undoable):
    undoable.run("ip = get_ipython()\nip.user_ns['u'] = 1").ok()
    undoable.run("u = 2").ok()
    undoable.run("%undo").ok()
    assert undoable.run("get_ipython() is ip, u").ok().result == "(True, 1)"
    run = undoable.run("%time None\n!echo shell\n%history -n -l 3").ok()
    assert "shell\n" in run.stdout and "%undo" not in run.stdout
    assert undoable.run("import sys; sys.displayhook is ip.displayhook or sys.displayhook").ok().result is not None


def test_streams_questions_and_displays_go_on(either):
    either.run("x = 1").ok()
    either.run("x = 2").ok()
    either.run("import cob; cob.undo()").ok()
    run = either.execute("import sys\nprint(input('Name? ')); sys.stderr.write('on stderr'); display(x)")
    either.client.answer(run.asked(), "Ada")
    run.wait().ok()
    assert "Ada\n" in run.stdout and run.stderr == "on stderr"
    assert [m.content["data"]["text/plain"] for m in run.messages if m.type == "display_data"] == ["1"]


def test_tasks_go_on(either):
    either.run("import asyncio, cob\nticks = []\nasync def tick():\n    while True:\n"
               "        ticks.append(1)\n        await asyncio.sleep(0.001)\n"
               "async def ticked():\n    seen = len(ticks)\n    while len(ticks) < seen + 3:\n        await asyncio.sleep(0.001)\n"
               "task = asyncio.create_task(tick())\nawait ticked()").ok()
    either.run("task.cancel()").ok()
    either.run("cob.undo()").ok()
    assert either.run("await ticked()\ntask.done()").ok().result == "False"
    assert either.run("await asyncio.to_thread(lambda: 'from a thread')").ok().result == "'from a thread'"
    either.run("task.cancel()").ok()


def test_branches_draw_different_numbers(undoable):
    undoable.run("import cob, random, secrets, numpy\nnumpy.random.seed(1); random.seed(1)\ncob.checkpoint('branch')").ok()
    drawn = set()
    for _ in range(3):
        drawn.add(undoable.run("random.random(), numpy.random.rand()").ok().result)
        undoable.run("cob.restore('branch')").ok()
    assert len(drawn) == 3


def test_the_environment_stays_as_the_code_left_it(either):
    either.run("import os\nos.environ.update(PAGER='less', OWN='1'); os.environ.pop('CLICOLOR')").ok()
    either.run("os.environ['OWN'] = '2'").ok()
    either.run("import cob; cob.undo()").ok()
    assert either.value("[os.environ.get(name) for name in ('PAGER', 'OWN', 'CLICOLOR')]") == ["less", "1", None]
    assert either.run("import subprocess; subprocess.run('echo $OWN', shell=True)").ok().stdout == "1\n"


def test_signals_wake_the_loop_of_each_branch(either):
    either.run("import asyncio, os, signal, cob\ngot = asyncio.Event()\n"
               "asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set)\ncob.checkpoint('signals')").ok()
    for _ in range(2):
        either.run("os.kill(os.getpid(), signal.SIGUSR1)\nawait asyncio.wait_for(got.wait(), 60)").ok()
        either.run("cob.restore('signals')").ok()
    either.run("asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)").ok()


@pytest.mark.parametrize("name", ["py310", "py311", "py312", "py313", "system"])
def test_every_python_goes_on(own, automatic, name):
    if not target.pythons().get(name):
        pytest.skip(f"there is no {name} here")
    kernel = own(f"{name}-auto")
    kernel.run("import asyncio, cob, os, threading\nticks = []\nasync def tick():\n    while True:\n"
               "        ticks.append(1)\n        await asyncio.sleep(0.001)\ntask = asyncio.create_task(tick())").ok()
    kernel.run("task.cancel(); x = 1").ok()
    kernel.run("cob.undo()").ok()
    run = kernel.run("seen = len(ticks)\nwhile len(ticks) < seen + 3: await asyncio.sleep(0.001)\n"
                     "assert await asyncio.to_thread(os.getpid) == os.getpid() == threading.main_thread().native_id\n"
                     "'x' in globals(), len(In), In[2:4]").ok()
    assert run.result == "(False, 5, ['', ''])"


def test_helpers_of_multiprocessing_are_in_nobodys_way_and_start_anew(either):
    either.run("import cob, multiprocessing, os, sys\nfrom multiprocessing import shared_memory\n"
               "import multiprocessing.forkserver as server\nserver.ensure_running()\n"
               "first = shared_memory.SharedMemory(create=True, size=1)\nsecret = bytes(multiprocessing.current_process().authkey)\n"
               "cob.checkpoint('helpers')").ok()
    either.run("first.close(); first.unlink()").ok()
    either.run("cob.restore('helpers')").ok()
    run = either.run("second = shared_memory.SharedMemory(create=True, size=1)\nsecond.close(); second.unlink()\n"
                     "child = multiprocessing.get_context('forkserver').Process(target=os.getpid)\nchild.start(); child.join()\n"
                     "assert child.exitcode == 0 and secret != multiprocessing.current_process().authkey").ok()
    assert run.stderr == ""
    either.run("first.close()").ok()


def test_figures_go_on(undoable):
    undoable.run("import matplotlib.pyplot as plt\nplt.ioff()\nfigure, axes = plt.subplots(); axes.plot([1, 2])").ok()
    undoable.run("axes.clear(); plt.close('all')").ok()
    undoable.run("%undo").ok()
    run = undoable.run("assert len(axes.lines) == 1\ndisplay(figure); plt.ion()").ok()
    assert any("image/png" in m.content["data"] for m in run.messages if m.type == "display_data")


def test_comms_go_on(undoable):
    run = undoable.run("from comm import create_comm\ngot = []\nc = create_comm(target_name='front')\n"
                       "c.on_msg(lambda m: got.append(m['content']['data']))").ok()
    [opened] = [m for m in run.messages if m.type == "comm_open"]
    undoable.run("got.append('undone')").ok()
    undoable.run("%undo").ok()
    request = undoable.client.send("shell", "comm_msg", {"comm_id": opened.content["comm_id"], "data": {"a": 1}})
    undoable.client.until(lambda: undoable.client.is_idle(request))
    assert undoable.run("got").ok().result == "[{'a': 1}]"
    assert [m.content["data"] for m in undoable.run("c.send({'b': 2})").ok().messages if m.type == "comm_msg"] == [{"b": 2}]
    undoable.run("c.close()").ok()


def test_no_checkpoint_is_taken_beside_a_thread(own, automatic):
    kernel = own("bare-auto")
    kernel.run("import cob, threading\nstop = threading.Event()").ok()
    kernel.run("waiter = threading.Thread(target=stop.wait); waiter.start()").ok()
    beside = kernel.value("[c.count for c in cob.checkpoints()]")
    for _ in range(2):
        kernel.run("x = 1").ok()
    assert kernel.value("[c.count for c in cob.checkpoints()]") == beside
    after = kernel.run("stop.set(); waiter.join()").ok()
    kernel.run("x = 2").ok()
    assert after.count in kernel.value("[c.count for c in cob.checkpoints()]")
