"""execute_request: replies, counts, quiet executions, expressions, and the abort of what is queued."""
import pytest


def test_the_last_expression_is_the_result(kernel):
    run = kernel.run("x = 20\nx + 1").ok()
    assert run.outputs.plain() == [("execute_result", "21")]
    [result] = run.outputs.of_type("execute_result")
    assert result.content["execution_count"] == run.count


@pytest.mark.parametrize("code", ["x = 1", "1;", "None", "for n in [1]: n", "", "   \n", "# only a comment", "def f(): pass"])
def test_no_result_without_a_last_expression(kernel, code):
    assert kernel.run(code).ok().outputs.plain() == []


def test_results_print_as_python_shows_them(kernel):
    for code, shown in [("'text'", "'text'"), ("b'x'", "b'x'"), ("1.5", "1.5"), ("[1, 'a']", "[1, 'a']"),
                        ("{'a': 1}", "{'a': 1}"), ("...", "Ellipsis"), ("2**100", str(2**100))]:
        assert kernel.run(code).ok().result == shown


def test_the_count_goes_up_by_one(kernel):
    first = kernel.run("1").ok()
    second = kernel.run("2").ok()
    third = kernel.run("1/0")
    fourth = kernel.run("3").ok()
    assert [r.count - first.count for r in (first, second, third, fourth)] == [0, 1, 2, 3]


def test_the_count_is_the_same_everywhere(kernel):
    run = kernel.run("7").ok()
    [shown] = kernel.client.messages(run.id, "iopub", ("execute_input",))
    assert run.count == shown.content["execution_count"] == run.outputs.of_type("execute_result")[0].content["execution_count"]


def test_silent_runs_publish_nothing_and_count_nothing(kernel):
    before = kernel.run("1").ok().count
    run = kernel.run("silent_x = 5\nsilent_x", silent=True).ok()
    assert [m.type for m in run.messages] == ["status", "status"]
    assert kernel.run("silent_x").ok().result == "5"
    assert kernel.run("1").ok().count == before + 2


def test_store_history_false_shows_output_and_counts_nothing(kernel):
    before = kernel.run("1").ok().count
    run = kernel.run("print('shown')\n5", store_history=False).ok()
    assert run.stdout == "shown\n" and run.result == "5"
    assert kernel.run("1").ok().count == before + 1


def test_user_expressions_answer_each_for_itself(kernel):
    run = kernel.run("a, b = 6, 7", user_expressions={"product": "a * b", "wrong": "no_such_name", "text": "'t'"}).ok()
    answers = run.reply["user_expressions"]
    assert answers["product"]["status"] == "ok" and answers["product"]["data"]["text/plain"] == "42"
    assert answers["text"]["data"]["text/plain"] == "'t'"
    assert answers["wrong"]["status"] == "error" and answers["wrong"]["ename"] == "NameError"
    assert run.outputs.plain() == []


def test_user_expressions_are_not_computed_after_an_error(kernel):
    run = kernel.run("1/0", user_expressions={"x": "1"})
    assert run.status == "error" and not run.reply.get("user_expressions")


def test_names_are_kept_between_cells(kernel):
    kernel.run("kept = {'a': 1}\ndef reader(): return kept['a']").ok()
    kernel.run("kept['a'] = 2").ok()
    assert kernel.run("reader()").ok().result == "2"


def test_the_namespace_is_main(kernel):
    kernel.run("main_marker = 1\nclass Here: pass").ok()
    assert kernel.run("import sys\nsys.modules['__main__'].main_marker, __name__, Here.__module__").ok().result \
        == "(1, '__main__', '__main__')"


def test_annotations_and_future_imports_last(kernel):
    kernel.run("from __future__ import annotations\ndef f(x: not_defined_anywhere): pass").ok()
    assert kernel.run("def g(x: nor_this): pass\ng.__annotations__").ok().result == "{'x': 'nor_this'}"


def test_classes_of_cells_can_be_pickled(kernel):
    assert kernel.run("import pickle\nclass Point:\n    x = 1\npickle.loads(pickle.dumps(Point())).x").ok().result == "1"


# Errors ----------------------------------------------------------------------

def test_an_error_is_in_the_reply_and_on_iopub(kernel):
    run = kernel.run("raise ValueError('the message')")
    assert run.status == "error" and run.error is not None
    for where in (run.reply, run.error):
        assert (where["ename"], where["evalue"]) == ("ValueError", "the message")
        assert any("the message" in line for line in where["traceback"])


@pytest.mark.parametrize("code, name", [("(", "SyntaxError"), ("no_such_name", "NameError"), ("import nowhere_at_all", "ModuleNotFoundError"),
                                        ("class E(Exception): pass\nraise E()", "E"), ("raise KeyboardInterrupt", "KeyboardInterrupt"),
                                        ("  x = 1\n y = 2", "IndentationError"), ("async def f(): pass\nawait f", "TypeError"),
                                        ("def r(): r()\nr()", "RecursionError"), ("return 1", "SyntaxError")])
def test_every_kind_of_error_has_its_name(kernel, code, name):
    run = kernel.run(code)
    assert run.reply["ename"] == run.error["ename"] == name
    assert kernel.run("1 + 1").ok().result == "2"


@pytest.mark.cob_only("reports the second error instead")
def test_an_error_whose_text_fails_is_still_an_error(kernel):
    run = kernel.run("class Nasty(Exception):\n    def __str__(self): raise RuntimeError('no text')\nraise Nasty()")
    assert run.status == "error" and run.reply["ename"] == "Nasty"


def test_a_result_whose_repr_fails_does_not_end_the_kernel(kernel):
    run = kernel.run("class Nasty:\n    def __repr__(self): raise RuntimeError('no repr')\nNasty()")
    assert "no repr" in str(run.outputs.messages[-1].content)
    assert kernel.run("1 + 1").ok().result == "2"


def test_lone_surrogates_do_not_end_the_kernel(kernel):
    kernel.run("print('\\ud800')")
    kernel.run("'\\ud800'")
    kernel.run("raise ValueError('\\ud800')")
    assert kernel.run("1 + 1").ok().result == "2"


def test_sys_exit_ends_the_cell_not_the_kernel(kernel):
    run = kernel.run("import sys\nprint('before')\nsys.exit(3)")
    assert run.stdout == "before\n"
    assert run.status in ("ok", "error")
    assert kernel.run("1 + 1").ok().result == "2"


# The queue -------------------------------------------------------------------

def test_an_error_aborts_what_this_client_has_queued(kernel):
    runs = [kernel.execute("import time; time.sleep(0.2); 1/0")]
    runs += [kernel.execute(f"print('never {n}')") for n in range(5)]
    for run in runs:
        run.wait()
    assert [run.status for run in runs] == ["error"] + ["aborted"] * 5
    assert all(run.stdout == "" for run in runs)
    assert kernel.run("'after'").ok().result == "'after'"


def test_stop_on_error_false_lets_the_queue_go_on(kernel):
    first = kernel.execute("import time; time.sleep(0.2); 1/0", stop_on_error=False)
    second = kernel.execute("'ran'")
    assert first.wait().status == "error"
    assert second.wait().ok().result == "'ran'"


def test_other_requests_in_the_queue_are_answered_after_an_error(kernel):
    kernel.execute("import time; time.sleep(0.2); 1/0")
    aborted = kernel.execute("1")
    completion = kernel.ask("complete_request", {"code": "prin", "cursor_pos": 4})
    assert aborted.wait().status == "aborted"
    assert completion["status"] in ("ok", "aborted")


def test_aborted_cells_do_not_count(kernel):
    before = kernel.run("1").ok().count
    kernel.execute("import time; time.sleep(0.2); 1/0")
    kernel.execute("2").wait()
    assert kernel.run("3").ok().count == before + 2


@pytest.mark.cob_only("aborts what every client has queued")
def test_an_error_aborts_nothing_of_another_client(kernel):
    other = kernel.connect()
    failing = kernel.execute("import time; time.sleep(0.3); 1/0")
    kernel.client.until(lambda: kernel.client.state.get(failing.id) == "busy")
    mine = kernel.execute("1")
    theirs = other.execute("'theirs'")
    assert failing.wait().status == "error"
    assert mine.wait().status == "aborted"
    assert theirs.wait().ok().result == "'theirs'"


# Two front ends --------------------------------------------------------------

def test_two_front_ends_both_see_every_output_with_its_parent(kernel):
    other = kernel.connect()
    mine = kernel.run("print('mine')\n1").ok()
    theirs = other.run("print('theirs')\n2").ok()
    for client in (kernel.client, other):
        client.until(lambda: client.is_idle(mine.id) and client.is_idle(theirs.id))
        for run, text in ((mine, "mine\n"), (theirs, "theirs\n")):
            streams = client.messages(run.id, "iopub", ("stream",))
            assert "".join(m.content["text"] for m in streams) == text
            assert {m.parent["session"] for m in streams} == {run.client.session}


def test_replies_go_to_the_front_end_that_asked(kernel):
    other = kernel.connect()
    runs = [(kernel.client if n % 2 else other).execute(str(n)) for n in range(20)]
    for n, run in enumerate(runs):
        assert run.wait().ok().result == str(n)


@pytest.mark.cob_only("welcomes its first subscriber only")
def test_every_front_end_is_welcomed(kernel):
    for _ in range(3):
        client = kernel.connect()
        assert client.messages(types=("iopub_welcome",))[0].content == {"subscription": ""}


def test_pipelined_cells_are_answered_in_order(kernel):
    runs = [kernel.execute(f"{n}") for n in range(200)]
    for run in runs:
        run.wait().ok()
    replies = [m.parent_id for m in kernel.client.messages(channel="shell") if m.parent_id in {run.id for run in runs}]
    assert replies == [run.id for run in runs]
    assert [run.count - runs[0].count for run in runs] == list(range(200))


# Tolerance: what real front ends send ----------------------------------------

def answer_of(kernel, content, **options):
    request = kernel.client.send("shell", "execute_request", content, **options)
    kernel.client.until(lambda: kernel.client.reply_to(request) and kernel.client.is_idle(request))
    return kernel.client.reply_to(request).content


@pytest.mark.parametrize("content", [{"code": "1"}, {"code": "1", "silent": False, "future_field": {"x": 1}}])
def test_missing_and_unknown_fields_are_tolerated(kernel, content):
    assert answer_of(kernel, content)["status"] == "ok"


@pytest.mark.cob_only("fails on null")
def test_null_fields_are_tolerated(kernel):
    assert answer_of(kernel, {"code": "1", "user_expressions": None})["status"] == "ok"


def test_metadata_of_the_request_is_tolerated(kernel):
    metadata = {"cellId": "abc", "tags": ["x"], "deletedCells": []}
    assert answer_of(kernel, {"code": "1"}, metadata=metadata)["status"] == "ok"
