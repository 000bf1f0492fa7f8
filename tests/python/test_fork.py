"""Child processes of the user's code: their output comes once, and their end is not the kernel's."""
import pytest

ONCE = pytest.mark.cob_only("copies its buffers into the child")


@ONCE
def test_a_forked_child_prints_once(kernel):
    run = kernel.run("import os, sys\nprint('before')\npid = os.fork()\n"
                     "if pid == 0:\n    print('child', flush=True)\n    os._exit(0)\n"
                     "os.waitpid(pid, 0)\nprint('parent')").ok()
    assert sorted(run.stdout.split()) == ["before", "child", "parent"]


def test_the_namespace_of_a_child_is_its_own(kernel):
    kernel.run("import os\nshared = 'parent'\npid = os.fork()\n"
               "if pid == 0:\n    shared = 'child'\n    os._exit(0)\nos.waitpid(pid, 0)").ok()
    assert kernel.run("shared").ok().result == "'parent'"


def test_a_child_that_fails_does_not_end_the_kernel(kernel):
    run = kernel.run("import os\npid = os.fork()\nif pid == 0:\n    os.kill(os.getpid(), 9)\nos.WTERMSIG(os.waitpid(pid, 0)[1])").ok()
    assert run.result == "9"
    assert kernel.run("1 + 1").ok().result == "2"


@ONCE
def test_processes_with_fork_print_once(kernel):
    run = kernel.run("import multiprocessing\ncontext = multiprocessing.get_context('fork')\n"
                     "def work(n):\n    import sys\n    sys.stdout.write(f'work {n}\\n')\n"
                     "ps = [context.Process(target=work, args=(n,)) for n in range(4)]\n"
                     "for p in ps: p.start()\nfor p in ps: p.join()\n[p.exitcode for p in ps]").ok()
    assert run.result == "[0, 0, 0, 0]"
    assert sorted(run.stdout.split("\n")) == ["", "work 0", "work 1", "work 2", "work 3"]


def test_a_pool_with_fork_computes_with_functions_of_cells(kernel):
    run = kernel.run("import multiprocessing\ndef square(n): return n * n\n"
                     "with multiprocessing.get_context('fork').Pool(2) as pool:\n    squares = pool.map(square, range(10))\nsquares").ok()
    assert run.result == str([n * n for n in range(10)])


def test_queues_and_locks_work_between_processes(kernel):
    run = kernel.run("import multiprocessing\ncontext = multiprocessing.get_context('fork')\nq = context.Queue(); lock = context.Lock()\n"
                     "def put(q, lock):\n    with lock: q.put('from child')\n"
                     "p = context.Process(target=put, args=(q, lock)); p.start()\nanswer = q.get(timeout=60); p.join()\nanswer").ok()
    assert run.result == "'from child'"


def test_a_pool_of_processes_through_futures(kernel):
    run = kernel.run("import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor\ndef double(n): return 2 * n\n"
                     "with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as pool:\n    got = list(pool.map(double, range(5)))\ngot").ok()
    assert run.result == "[0, 2, 4, 6, 8]"


def test_spawned_processes_run_importable_functions(kernel):
    (kernel.cwd / "importable.py").write_text("def work(n): return n + 1\n")
    run = kernel.run("import multiprocessing, importable\nwith multiprocessing.get_context('spawn').Pool(1) as pool:\n    got = pool.map(importable.work, [1, 2])\ngot").ok()
    assert run.result == "[2, 3]"


def test_sys_exit_in_a_child_ends_the_child_only(kernel):
    run = kernel.run("import multiprocessing, sys\np = multiprocessing.get_context('fork').Process(target=sys.exit, args=(4,))\np.start(); p.join()\np.exitcode").ok()
    assert run.result == "4"
    assert kernel.run("1 + 1").ok().result == "2"


def test_an_error_in_a_child_is_shown_on_stderr(kernel):
    run = kernel.run("import multiprocessing\ndef fail(): raise ValueError('in the child')\n"
                     "p = multiprocessing.get_context('fork').Process(target=fail)\np.start(); p.join()\np.exitcode").ok()
    assert run.result == "1" and "in the child" in run.stderr


def test_a_child_that_outlives_its_cell_speaks_under_it(kernel):
    run = kernel.run("import subprocess\nlate = subprocess.Popen('sleep 0.3; echo late', shell=True)", late=True).ok()
    later = kernel.run("late.wait()", late=True).ok()
    kernel.client.until(lambda: "late\n" in run.stdout + later.stdout)
    assert later.result == "0"


def test_the_environment_of_children_is_the_users(kernel):
    run = kernel.run("import os, subprocess\nos.environ['OF_THE_CELL'] = 'seen'\nsubprocess.run('echo $OF_THE_CELL', shell=True).returncode").ok()
    assert run.stdout == "seen\n"
    # By this one the worker's children are known; nothing else of ours is there.
    names = kernel.run("print(*[k for k in os.environ if k.startswith('COB_')])").ok().stdout.split()
    assert names in ([], ["COB_WORKER"])


def test_children_inherit_no_descriptors_of_the_kernel(kernel):
    run = kernel.run("import subprocess\nprint(subprocess.run('ls /proc/self/fd', shell=True, capture_output=True, text=True, close_fds=False).stdout.split())").ok()
    numbers = [int(n) for n in eval(run.stdout)]
    assert [n for n in numbers if n > 3] == [] or kernel.info["implementation"] == "ipython"
