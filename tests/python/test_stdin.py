"""input() and getpass(): the question goes to the front end that asked, and waits."""
import pytest


def test_input_asks_and_gets_the_answer(kernel):
    run = kernel.execute("name = input('Name? ')\nprint('Hello', name)")
    request = run.asked()
    assert request.content == {"prompt": "Name? ", "password": False}
    kernel.client.answer(request, "Ada")
    assert "Hello Ada\n" in run.wait().ok().stdout


def test_getpass_asks_for_a_password_and_shows_nothing(kernel):
    run = kernel.execute("from getpass import getpass\nlen(getpass('Secret: '))")
    request = run.asked()
    assert request.content == {"prompt": "Secret: ", "password": True}
    kernel.client.answer(request, "hunter2")
    assert run.wait().ok().result == "7"
    assert "hunter2" not in str([m.content for m in run.messages])


def test_several_questions_in_one_cell(kernel):
    run = kernel.execute("[input(str(n)) for n in range(3)]")
    for n, answer in enumerate(["a", "ü🦀", ""]):
        request = run.asked(n + 1)
        assert request.content["prompt"] == str(n)
        kernel.client.answer(request, answer)
    assert run.wait().ok().result == "['a', 'ü🦀', '']"


def test_what_was_printed_is_published_before_the_question(kernel):
    run = kernel.execute("print('before')\ninput()")
    request = run.asked()
    run.printed("before\n")
    kernel.client.answer(request, "")
    run.wait().ok()


def test_an_interrupt_ends_the_waiting(kernel):
    kernel.run("survivor = 11").ok()
    run = kernel.execute("input('?')")
    run.asked()
    kernel.interrupt()
    assert run.wait().reply["ename"] == "KeyboardInterrupt"
    assert kernel.run("survivor").ok().result == "11"


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(kernel):
    first = kernel.execute("input('first')")
    stale = first.asked()
    kernel.interrupt()
    first.wait()
    kernel.client.answer(stale, "stale")
    second = kernel.execute("input('second')")
    kernel.client.answer(second.asked(), "fresh")
    assert second.wait().ok().result == "'fresh'"


def test_without_stdin_input_fails_at_once(kernel):
    run = kernel.run("input('?')", allow_stdin=False)
    assert run.status == "error"
    assert run.reply["ename"] in ("StdinNotImplementedError", "EOFError")
    assert not kernel.client.messages(run.id, "stdin")


def test_the_question_goes_to_the_front_end_that_asked(kernel):
    other = kernel.connect()
    run = other.execute("input('yours')")
    other.answer(run.asked(), "mine")
    assert run.wait().ok().result == "'mine'"
    assert not kernel.client.messages(run.id, "stdin")


def test_input_without_prompt(kernel):
    run = kernel.execute("input()")
    request = run.asked()
    assert request.content["prompt"] == ""
    kernel.client.answer(request, "x")
    assert run.wait().ok().result == "'x'"


@pytest.mark.cob_only("reads the terminal's end of file")
def test_reading_sys_stdin_does_not_hang(kernel):
    run = kernel.run("import sys\nsys.stdin.read()")
    assert run.status in ("ok", "error")
    assert kernel.run("1 + 1").ok().result == "2"


def test_children_find_an_empty_stdin(kernel):
    assert kernel.run("import subprocess\nsubprocess.run(['cat']).returncode").ok().result == "0"


def test_questions_do_not_disturb_control(kernel):
    run = kernel.execute("input('?')")
    request = run.asked()
    assert kernel.ask("kernel_info_request", channel="control")["status"] == "ok"
    kernel.client.answer(request, "done")
    assert run.wait().ok().result == "'done'"


def test_nobody_answers_in_time(kernel):
    kernel.run("import cob").ok()
    assert kernel.run("cob.input('?', timeout=0.05, default='none came')").ok().result == "'none came'"
    run = kernel.run("cob.input('?', timeout=0.05)")
    assert run.reply["ename"] == "InputTimeout"
    assert kernel.run("1 + 1").ok().result == "2"


def test_a_question_with_time_left_is_answered(kernel):
    run = kernel.execute("import cob\ncob.input('Name? ', timeout=60, password=True)")
    request = run.asked()
    assert request.content == {"prompt": "Name? ", "password": True}
    kernel.client.answer(request, "Ada")
    assert run.wait().ok().result == "'Ada'"


def test_code_knows_what_it_runs_as(kernel):
    run = kernel.run("import cob\ncob.execution()").ok()
    known = eval(run.result)
    assert known["promise"] == run.reply_message.metadata["cob"]["promise"]
    assert known["key"] == run.id and known["session"] == known["promise"].split(".")[0]
