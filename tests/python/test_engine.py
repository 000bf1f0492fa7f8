"""What a notebook user finds in the namespace: In, Out, _, exit, the pager."""
import pytest


def test_the_last_results_are_underscores(kernel):
    kernel.run("'first'").ok()
    kernel.run("'second'").ok()
    kernel.run("'third'").ok()
    assert kernel.run("(_, __, ___)").ok().result == "('third', 'second', 'first')"


def test_a_cell_without_result_leaves_the_underscore(kernel):
    kernel.run("'kept'").ok()
    kernel.run("x = 5\nNone").ok()
    assert kernel.run("_").ok().result == "'kept'"


def test_results_are_kept_by_number(kernel):
    run = kernel.run("'the result'").ok()
    assert kernel.run(f"_{run.count} + Out[{run.count}]").ok().result == "'the resultthe result'"


def test_a_semicolon_hides_the_result_but_not_the_value(kernel):
    run = kernel.run("'hidden';").ok()
    assert run.result is None
    assert kernel.run("1;  # with a comment").ok().result is None


def test_inputs_are_kept_by_number(kernel):
    run = kernel.run("marker_of_this_cell = 1").ok()
    assert kernel.run(f"In[{run.count}]").ok().result == "'marker_of_this_cell = 1'"
    assert kernel.run(f"_i{run.count}").ok().result == "'marker_of_this_cell = 1'"


def test_the_last_inputs_are_underscore_i(kernel):
    kernel.run("a = 'one'").ok()
    kernel.run("a = 'two'").ok()
    assert kernel.run("_i, _ii").ok().result == "(\"a = 'two'\", \"a = 'one'\")"


def test_a_users_own_underscore_is_respected(kernel):
    kernel.run("for _ in range(3): pass").ok()
    kernel.run("'result'").ok()
    assert kernel.run("_").ok().result == "2"
    kernel.run("del _").ok()


def test_errors_of_a_cell_leave_out_alone(kernel):
    kernel.run("'good'").ok()
    failed = kernel.run("1/0")
    assert kernel.run(f"{failed.count} in Out").ok().result == "False"


@pytest.mark.parametrize("code", ["exit", "quit", "exit()", "quit()"])
def test_exit_asks_the_front_end_to_end_the_kernel(own, code):
    kernel = own("bare")
    run = kernel.run(code)
    assert run.status == "ok"
    assert [p for p in run.reply["payload"] if p["source"] == "ask_exit"][0]["keepkernel"] is False


@pytest.mark.parametrize("code, expected", [("print?", "Print"), ("len??", "len"), ("?len", "len"), ("own_function??", "own_body")])
def test_a_question_mark_opens_the_pager(rich, code, expected):
    rich.run("def own_function():\n    own_body = 1\n    return own_body").ok()
    run = rich.run(code).ok()
    [page] = [p for p in run.reply["payload"] if p["source"] == "page"]
    assert expected.lower() in page["data"]["text/plain"].lower()
    assert run.stdout == ""


@pytest.mark.cob_only("has IPython everywhere")
def test_a_question_mark_works_without_ipython(bare):
    run = bare.run("print?").ok()
    [page] = [p for p in run.reply["payload"] if p["source"] == "page"]
    assert "print" in page["data"]["text/plain"]


def test_help_prints_instead_of_paging(kernel):
    assert "Return the number of items" in kernel.run("help(len)").ok().stdout


def test_the_working_directory_is_where_the_kernel_was_started(kernel):
    assert kernel.value("__import__('os').getcwd()") == str(kernel.cwd)


def test_modules_beside_the_notebook_can_be_imported(kernel):
    (kernel.cwd / "beside.py").write_text("value = 'from beside'\n")
    assert kernel.run("import beside\nbeside.value").ok().result == "'from beside'"


def test_the_interpreter_is_the_users_own(kernel):
    from support import target
    if not target.IS_COB:
        pytest.skip("ipykernel: runs in the environment of the tests")
    python = target.RICH if kernel.name == "rich" else target.BARE
    assert kernel.run("import sys\nsys.executable").ok().result == repr(python)
    assert kernel.run("sys.prefix != sys.base_prefix").ok().result == "True"


def test_arguments_of_the_kernel_do_not_leak_into_sys_argv(kernel):
    argv = kernel.value("__import__('sys').argv")
    assert isinstance(argv, list) and argv


def test_main_has_no_file(kernel):
    assert kernel.run("'__file__' in globals()").ok().result == "False"


def test_nothing_of_the_kernel_is_visible_in_the_namespace(own):
    names = own("bare").value("sorted(k for k in globals() if not k.startswith('_'))")
    assert set(names) <= {"In", "Out", "display", "exit", "get_ipython", "open", "quit"}


@pytest.mark.cob_only("does not survive it")
def test_deleting_what_the_engine_gave_does_not_break_it(own):
    kernel = own("bare")
    kernel.run("del In, Out")
    kernel.run("globals().clear()")
    assert kernel.run("1 + 1").status == "ok"


def test_globals_can_be_replaced_by_hostile_values(own):
    kernel = own("bare")
    kernel.run("print = len = repr = str = type = isinstance = None")
    kernel.run("import sys\nsys.displayhook = None")
    assert kernel.run("x = 1").status == "ok"
    assert kernel.run("1/0").reply["ename"] == "ZeroDivisionError"


def test_users_may_replace_stdout_for_a_while(kernel):
    run = kernel.run("import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as f:\n    print('caught')\nprint('free')\nf.getvalue()").ok()
    assert run.stdout == "free\n" and run.result == "'caught\\n'"


def test_stdout_is_a_file_like_any_other(kernel):
    run = kernel.run("import sys\nassert sys.stdout.encoding.lower() == 'utf-8'\nassert sys.stdout.writable() and not sys.stdout.isatty()\n"
                     "sys.stdout.writelines(['a', 'b'])\nsys.stdout.buffer.write(b'c') if hasattr(sys.stdout, 'buffer') else sys.stdout.write('c')\n"
                     "sys.stdout.flush()\nsys.stdout.write('12345')").ok()
    assert run.stdout == "abc12345" and run.result == "5"
    assert kernel.run("sys.stdout.fileno()").status == "ok"


def test_logging_goes_to_stderr(kernel):
    run = kernel.run("import logging\nlogging.getLogger('cell').warning('logged')").ok()
    assert "logged" in run.stderr


def test_faulthandler_can_be_switched_on(kernel):
    assert kernel.run("import faulthandler\nfaulthandler.enable()\nfaulthandler.is_enabled()").ok().result == "True"


def test_progress_bars_keep_their_carriage_returns(rich):
    run = rich.run("from tqdm import tqdm\nfor n in tqdm(range(3)): pass").ok()
    assert "3/3" in run.stderr and "\r" in run.stderr
