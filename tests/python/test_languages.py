"""The executor suite: what every language promises, whatever it is. The rows are in support/languages.py."""
import re
import shutil
import signal

import psutil
import pytest

from support import target
from support.languages import LANGUAGES
from support.outputs import Outputs, without_colour

pytestmark = pytest.mark.cob_only("speaks one language")


@pytest.fixture(params=LANGUAGES)
def language(request):
    return LANGUAGES[request.param]


@pytest.fixture(scope="module")
def kernels(launch):
    """The module's kernels, by the name of their kernelspec."""
    started = {}

    def get(name):
        if name not in started or not started[name].is_usable():
            started[name] = launch(name)
        return started[name]

    return get


@pytest.fixture
def kernel(language, kernels, request):
    kernel = kernels(language.kernel)
    yield kernel
    report = getattr(request.node, "report", None)
    if report is None or not report.passed:
        kernel.close()


def check_still_usable(kernel, language):
    expression, shown = language.result
    assert kernel.run(expression).ok().result == shown


# Cells -----------------------------------------------------------------------

def test_the_language_is_named(kernel, language):
    info = kernel.info["language_info"]
    assert {name: info[name] for name in language.info} == language.info
    for name in ("version", "mimetype"):
        assert info[name]
    assert kernel.info["banner"]


def test_what_is_printed_is_shown(kernel, language):
    run = kernel.run(language.say.format("hello")).ok()
    assert (run.stdout, run.stderr) == ("hello\n", "")
    run = kernel.run(language.complain.format("oh")).ok()
    assert (run.stdout, run.stderr) == ("", "oh\n")


def test_the_value_of_the_last_expression_is_the_result(kernel, language):
    expression, shown = language.result
    run = kernel.run(expression).ok()
    assert run.result == shown
    [result] = run.outputs.of_type("execute_result")
    assert result.content["execution_count"] == run.count


def test_no_value_is_no_result(kernel, language):
    assert kernel.run(language.nothing).ok().outputs.merged() == []
    assert kernel.run("").ok().outputs.merged() == []


def test_names_are_kept_from_cell_to_cell(kernel, language):
    define, add, show = language.zero
    for code in (define, add):
        assert kernel.run(code).ok().result is None
    assert kernel.run(show).ok().result == "42"
    kernel.run(define).ok()
    assert kernel.run(show).ok().result == "41"


def test_an_error_has_name_message_and_traceback(kernel, language):
    run = kernel.run(language.fail.format("wanted"))
    assert run.status == "error"
    for told in (run.reply, run.error):
        assert (told["ename"], told["evalue"]) == (language.ename, "wanted")
        text = without_colour("\n".join(told["traceback"]))
        assert language.ename in text and "wanted" in text
    assert kernel.run("no_such_name_at_all").error["ename"] == language.unknown_ename
    check_still_usable(kernel, language)


def test_an_error_says_which_line(kernel, language):
    run = kernel.run("\n\n" + language.fail.format("on the third line"))
    text = without_colour("\n".join(run.error["traceback"]))
    assert language.fail.format("on the third line") in text
    assert re.search(language.third_line, text)


def test_the_count_goes_up_and_silent_cells_do_not_count(kernel, language):
    first = kernel.run(language.say.format("counted")).count
    silent = kernel.run(language.result[0], silent=True).ok()
    assert silent.outputs.merged() == []
    assert kernel.run(language.nothing).ok().count == first + 1


def test_what_follows_an_error_is_not_run(kernel, language):
    gate = kernel.execute(language.ask.format("go?"))
    question = gate.asked()
    wrong = kernel.execute(language.fail.format("stops"))
    stopped = kernel.execute(language.say.format("never"))
    kernel.client.answer(question, "yes")
    assert wrong.wait().status == "error"
    assert stopped.wait().status in ("aborted", "error") and stopped.stdout == ""
    check_still_usable(kernel, language)


def test_what_follows_an_error_is_run_if_that_is_wanted(kernel, language):
    gate = kernel.execute(language.ask.format("go?"))
    question = gate.asked()
    wrong = kernel.execute(language.fail.format("goes on"), stop_on_error=False)
    after = kernel.execute(language.say.format("after"))
    kernel.client.answer(question, "yes")
    assert wrong.wait().status == "error"
    assert after.wait().ok().stdout == "after\n"


def test_expressions_of_the_user_are_answered(kernel, language):
    expression, shown = language.result
    wanted = {"good": expression, "bad": "no_such_name_at_all"}
    answers = kernel.run("", user_expressions=wanted).ok().reply["user_expressions"]
    assert answers["good"]["status"] == "ok" and answers["good"]["data"]["text/plain"] == shown
    assert answers["bad"]["status"] == "error" and answers["bad"]["ename"] == language.unknown_ename


@pytest.mark.parametrize("text", ["żółw", "🦀🦀", "日本語", "a\u0301"])
def test_text_of_any_script_comes_through(kernel, language, text):
    assert kernel.run(language.say.format(text)).ok().stdout == text + "\n"
    assert kernel.run(language.text.format(text)).ok().result == language.text_result.format(text)
    assert kernel.run(language.fail.format(text)).error["evalue"] == text


# Output ----------------------------------------------------------------------

def test_both_streams_keep_their_order(kernel, language):
    assert kernel.run(language.mixed).ok().outputs.merged() == [("stdout", "1\n"), ("stderr", "2\n"), ("stdout", "3\n")]


def test_prints_displays_and_errors_keep_their_order(kernel, language):
    cells = [language.say.format("a"), language.display.format("<b>b</b>"), language.say.format("c"), language.fail.format("d")]
    run = kernel.run("\n".join(cells))
    kinds = [kind for kind, _ in run.outputs.merged()]
    assert kinds == ["stdout", "display_data", "stdout", "error"]


def test_much_output_is_complete(kernel, language):
    run = kernel.run(language.flood.format(20_000)).ok()
    assert run.stdout == ("x" * 99 + "\n") * 20_000


def test_html_is_displayed(kernel, language):
    run = kernel.run(language.display.format("<b>bold</b>")).ok()
    assert [data["text/html"] for data in run.outputs.displays] == ["<b>bold</b>"]


def test_a_display_is_put_in_the_place_of_another(kernel, language):
    run = kernel.run(language.update).ok()
    [first] = run.outputs.of_type("display_data")
    [second] = run.outputs.of_type("update_display_data")
    assert first.content["data"]["text/html"] == "one" and second.content["data"]["text/html"] == "two"
    assert first.content["transient"]["display_id"] == second.content["transient"]["display_id"]


def test_output_can_be_cleared(kernel, language):
    run = kernel.run(language.clear).ok()
    [cleared] = run.outputs.of_type("clear_output")
    assert cleared.content["wait"] is False


def test_late_output_belongs_to_its_cell(kernel, language):
    run = kernel.execute(language.late, late=True).wait().ok()
    run.printed("late\n")
    other = kernel.run(language.say.format("other")).ok()
    assert (run.stdout, other.stdout) == ("late\n", "other\n")


# Input -----------------------------------------------------------------------

def test_a_question_is_asked_and_answered(kernel, language):
    run = kernel.execute(language.ask.format("Name? "))
    question = run.asked()
    assert question.content == {"prompt": "Name? ", "password": False}
    kernel.client.answer(question, "Adä 🦀")
    assert run.wait().ok().stdout == "[Adä 🦀]\n"


def test_a_password_is_asked_for_as_one(kernel, language):
    run = kernel.execute(language.ask_secretly.format("Secret? "))
    question = run.asked()
    assert question.content == {"prompt": "Secret? ", "password": True}
    kernel.client.answer(question, "x")
    assert run.wait().ok().stdout == "[x]\n"


def test_who_cannot_be_asked_is_not(kernel, language):
    run = kernel.run(language.ask.format("Name? "), allow_stdin=False)
    assert run.status == "error" and "does not support input requests" in run.error["evalue"]
    check_still_usable(kernel, language)


# Interrupts and losses -------------------------------------------------------

@pytest.mark.parametrize("kind", ["spin", "wait", "shout"])
def test_an_interrupt_ends_what_runs(kernel, language, kind):
    kernel.run(language.zero[0]).ok()
    run = kernel.execute(getattr(language, kind)).printed("ready\n")
    kernel.interrupt()
    assert run.wait().reply["ename"] == "KeyboardInterrupt"
    assert kernel.run(language.zero[2]).ok().result == "41"


def test_an_interrupt_ends_a_question(kernel, language):
    run = kernel.execute(language.ask.format("for ever? "))
    run.asked()
    kernel.interrupt()
    assert run.wait().reply["ename"] == "KeyboardInterrupt"
    check_still_usable(kernel, language)


def test_an_interrupt_while_nothing_runs_changes_nothing(kernel, language):
    kernel.run(language.zero[0]).ok()
    request = kernel.interrupt_by_message()
    kernel.client.until(lambda: kernel.client.reply_to(request))
    assert kernel.run(language.zero[2]).ok().result == "41"


def workers(kernel):
    """The processes that run its cells, whoever has started them: a folder of its own tells them from all others."""
    works_there = (process for process in psutil.process_iter() if process.pid != kernel.pid and cwd(process) == str(kernel.cwd))
    return [process for process in works_there if "custodian" not in process.cmdline()]


def cwd(process):
    try:
        return process.cwd()
    except psutil.Error:
        return None


def test_a_killed_worker_is_reported_and_replaced(own, language):
    kernel = own(language.kernel)
    kernel.run(language.zero[0]).ok()
    run = kernel.execute(language.spin).printed("ready\n")
    for worker in workers(kernel):
        worker.send_signal(signal.SIGKILL)
    assert run.wait().reply["ename"] == "WorkerLost" and run.stdout == "ready\n"
    check_still_usable(kernel, language)
    assert kernel.run(language.zero[2]).error["ename"] == language.unknown_ename


def test_code_that_ends_its_process_is_reported(own, language):
    if language.end_process is None:
        pytest.skip("code of this language cannot end its process")
    kernel = own(language.kernel)
    assert kernel.run(language.end_process).reply["ename"] == "WorkerLost"
    check_still_usable(kernel, language)


def test_a_restart_forgets_everything(own, language):
    kernel = own(language.kernel)
    kernel.run(language.zero[0]).ok()
    kernel.manager.restart_kernel()
    kernel.reconnect()
    assert kernel.run(language.zero[2]).error["ename"] == language.unknown_ename


# Questions about code --------------------------------------------------------

def completed(kernel, code, cursor=None):
    reply = kernel.ask("complete_request", {"code": code, "cursor_pos": len(code) if cursor is None else cursor})
    assert reply["status"] == "ok"
    kinds = reply["metadata"]["_jupyter_types_experimental"]
    assert [kind["text"] for kind in kinds] == reply["matches"]
    start, end = reply["cursor_start"], reply["cursor_end"]
    return [code[:start] + match + code[end:] for match in reply["matches"]]


def test_names_and_members_are_completed(kernel, language):
    kernel.run(language.zero[0]).ok()
    kernel.run(language.members).ok()
    assert "kept" in completed(kernel, "kep")
    assert "box.content_of_box" in completed(kernel, "box.cont")
    assert completed(kernel, "no_such_name_at_all.x") == []
    code = "'żółw 🦀'; box.cont + 1"
    assert "'żółw 🦀'; box.content_of_box + 1" in completed(kernel, code, cursor=len(code) - 4)


def test_what_is_documented_is_described(kernel, language):
    kernel.run(language.documented).ok()
    for code, cursor in [("documented", 10), ("documented(1, 2)", 4), ("documented(1, ", 14), ("'🦀🦀'; documented", 8)]:
        reply = kernel.ask("inspect_request", {"code": code, "cursor_pos": cursor, "detail_level": 0})
        assert reply["status"] == "ok" and reply["found"], (code, cursor)
        text = without_colour(reply["data"]["text/plain"])
        assert "alpha" in text and "beta" in text and "What it does." in text and "return alpha" not in text
    reply = kernel.ask("inspect_request", {"code": "documented", "cursor_pos": 1, "detail_level": 1})
    assert "return alpha" in without_colour(reply["data"]["text/plain"])
    reply = kernel.ask("inspect_request", {"code": "no_such_name_at_all", "cursor_pos": 3, "detail_level": 0})
    assert reply["found"] is False and reply["data"] == {}


@pytest.mark.parametrize("kind", ["complete", "incomplete", "invalid"])
def test_whether_code_is_complete(kernel, language, kind):
    for code in getattr(language, kind):
        assert kernel.ask("is_complete_request", {"code": code})["status"] == kind, code


def test_the_history_has_the_sources(kernel, language):
    kernel.run(language.say.format("remembered")).ok()
    asked = {"raw": True, "output": False, "hist_access_type": "tail", "n": 1}
    assert [entry[2] for entry in kernel.ask("history_request", asked)["history"]] == [language.say.format("remembered")]


# Comms -----------------------------------------------------------------------

def test_comms_answer_with_buffers(kernel, language):
    kernel.run(language.echo).ok()
    client = kernel.client
    opened = client.send("shell", "comm_open", {"comm_id": "echo-1", "target_name": "echo", "data": {}})
    client.until(lambda: client.is_idle(opened))
    assert "echo-1" in kernel.ask("comm_info_request", {"target_name": "echo"})["comms"]
    sent = client.send("shell", "comm_msg", {"comm_id": "echo-1", "data": {"n": [1, "ü"]}}, buffers=[b"\x00\xff", b""])
    client.until(lambda: client.is_idle(sent))
    [answer] = client.messages(sent, "iopub", ("comm_msg",))
    assert answer.content["data"] == {"n": [1, "ü"]}
    assert [bytes(buffer) for buffer in answer.buffers] == [b"\x00\xff", b""]
    closed = client.send("shell", "comm_close", {"comm_id": "echo-1", "data": {}})
    client.until(lambda: client.is_idle(closed))
    assert kernel.ask("comm_info_request", {"target_name": "echo"})["comms"] == {}


def test_a_comm_that_nobody_knows_is_closed(kernel, language):
    client = kernel.client
    opened = client.send("shell", "comm_open", {"comm_id": "stray", "target_name": "no.such.target", "data": {}})
    client.until(lambda: client.is_idle(opened))
    assert [m.content["comm_id"] for m in client.messages(opened, "iopub", ("comm_close",))] == ["stray"]
    assert Outputs(client.messages(opened, "iopub")).text("stdout") == ""
    check_still_usable(kernel, language)


# Checkpoints -----------------------------------------------------------------

@pytest.fixture(scope="module")
def undoable(kernelspecs, launch):
    """Kernels whose sessions take a checkpoint before each cell, by the name of the kernelspec they are made from."""
    started = {}

    def get(name):
        folder = kernelspecs / f"{name}-undoable"
        if not folder.exists():
            shutil.copytree(kernelspecs / name, folder)
            target.add_arguments(folder, ["--checkpoints", "auto"])
        if name not in started or not started[name].is_usable():
            started[name] = launch(folder.name)
        return started[name]

    return get


def test_cells_are_undone(undoable, language):
    kernel = undoable(language.kernel)
    define, add, show = language.zero
    for code in (define, add, add):
        kernel.run(code).ok()
    assert kernel.run(show).ok().result == "43"
    assert "not undone" in kernel.run(language.undo.format(2)).ok().stdout
    assert kernel.run(show).ok().result == "42"
    check_still_usable(kernel, language)
