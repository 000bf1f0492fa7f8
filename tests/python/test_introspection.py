"""Completion, inspection, is_complete and history."""
import pytest

from support.outputs import without_colour


def complete(kernel, code, cursor=None):
    return kernel.ask("complete_request", {"code": code, "cursor_pos": len(code) if cursor is None else cursor})


def completed(kernel, code, cursor=None):
    """The texts that one would have after each completion."""
    reply = complete(kernel, code, cursor)
    assert reply["status"] == "ok"
    start, end = reply["cursor_start"], reply["cursor_end"]
    assert 0 <= start <= end <= len(code)
    return [code[:start] + match + code[end:] for match in reply["matches"]]


@pytest.mark.parametrize("code, expected", [("pri", "print"), ("zi", "zip"), ("isinst", "isinstance"), ("impor", "import")])
def test_builtins_and_keywords_are_completed(kernel, code, expected):
    assert any(text.startswith(expected) for text in completed(kernel, code))


def test_own_names_are_completed(kernel):
    kernel.run("my_long_variable_name = 1").ok()
    assert completed(kernel, "my_long_v") == ["my_long_variable_name"]


def test_attributes_of_values_are_completed(kernel):
    kernel.run("class Box:\n    def __init__(self): self.content_of_box = 1\nbox = Box()\ntext = 'abc'").ok()
    assert "box.content_of_box" in completed(kernel, "box.cont")
    assert "text.upper" in completed(kernel, "text.up")


def test_members_of_modules_are_completed(kernel):
    kernel.run("import os, os.path").ok()
    assert "os.getcwd" in completed(kernel, "os.getc")
    assert "os.path.join" in completed(kernel, "os.path.jo")


def test_modules_are_completed_after_import(kernel):
    assert any("itertools" in text for text in completed(kernel, "import itert"))
    assert any(text.endswith("itemgetter") for text in completed(kernel, "from operator import itemg"))


def test_the_cursor_decides_what_is_completed(kernel):
    kernel.run("import os").ok()
    code = "x = os.getc + 1\ny = zi"
    assert "x = os.getcwd + 1\ny = zi" in completed(kernel, code, cursor=11)
    assert "x = os.getc + 1\ny = zip" in completed(kernel, code)


def test_offsets_count_characters_not_bytes(kernel):
    """Code points, also beyond the basic plane: what protocol 5.2 settled."""
    kernel.run("import os").ok()
    code = "'żółw 🦀'; os.getc"
    reply = complete(kernel, code)
    assert code[reply["cursor_start"]:reply["cursor_end"]] in ("os.getc", "getc")
    assert "'żółw 🦀'; os.getcwd" in completed(kernel, code)


def test_names_with_letters_of_any_script_are_completed(kernel):
    kernel.run("überlänge = 1").ok()
    assert completed(kernel, "überl") == ["überlänge"]


def test_nothing_to_complete_is_an_empty_answer(kernel):
    reply = complete(kernel, "no_such_name_at_all.x")
    assert reply["status"] == "ok" and reply["matches"] == []


@pytest.mark.parametrize("code", ["", "(((", "'unfinished", "def f(", "1 +", "\n\n", "x[", "%", "!"])
def test_odd_code_can_be_completed_without_harm(kernel, code):
    assert complete(kernel, code)["status"] == "ok"


def test_completion_runs_no_user_code_and_prints_nothing(kernel):
    kernel.run("class Loud:\n    @property\n    def loud(self):\n        print('side effect')\n        return 1\nloud_box = Loud()").ok()
    request = kernel.client.send("shell", "complete_request", {"code": "loud_box.lou", "cursor_pos": 12})
    kernel.client.until(lambda: kernel.client.reply_to(request) and kernel.client.is_idle(request))
    assert not kernel.client.messages(request, "iopub", ("stream",))
    assert "loud" in str(kernel.client.reply_to(request).content["matches"])


def test_keys_of_dictionaries_are_completed(rich):
    rich.run("table = {'first_key': 1, 'second_key': 2}").ok()
    assert any("first_key" in text for text in completed(rich, "table['fir"))


def test_columns_of_frames_are_completed(rich):
    rich.run("import pandas as pd\nframe = pd.DataFrame({'column_a': [1]})").ok()
    assert any("column_a" in text for text in completed(rich, "frame['col"))
    assert "frame.column_a" in completed(rich, "frame.colu")


def test_magics_are_completed(rich):
    assert any("%timeit" in text for text in completed(rich, "%time"))


def test_files_are_completed_in_strings(rich):
    (rich.cwd / "a_file_to_find.txt").write_text("")
    assert any("a_file_to_find.txt" in text for text in completed(rich, "open('a_file_to"))


# Inspection ------------------------------------------------------------------

def inspect(kernel, code, detail=0, cursor=None):
    reply = kernel.ask("inspect_request", {"code": code, "cursor_pos": len(code) if cursor is None else cursor, "detail_level": detail})
    assert reply["status"] == "ok"
    return reply


def test_inspection_shows_signature_and_docstring(kernel):
    kernel.run("def documented(alpha, beta=2):\n    '''The docstring of it.'''\n    return alpha  # body").ok()
    reply = inspect(kernel, "documented")
    assert reply["found"]
    text = without_colour(reply["data"]["text/plain"])
    assert "alpha, beta=2" in text and "The docstring of it." in text


def test_more_detail_shows_the_source(kernel):
    kernel.run("def detailed():\n    return 1  # the body of it").ok()
    assert "# the body of it" in inspect(kernel, "detailed", detail=1)["data"]["text/plain"]


def test_inspection_inside_a_call_shows_the_function(kernel):
    assert inspect(kernel, "isinstance(1, ", cursor=12)["found"]
    assert inspect(kernel, "isinstance", cursor=4)["found"]


def test_inspection_of_attributes_and_values(kernel):
    kernel.run("import os.path\nnumbers = [1, 2, 3]").ok()
    assert inspect(kernel, "os.path.join")["found"]
    assert "list" in inspect(kernel, "numbers")["data"]["text/plain"]


@pytest.mark.parametrize("code", ["no_such_name_at_all", "", "   ", "1 +", "(", "no_such.attribute"])
def test_what_is_not_there_is_not_found(kernel, code):
    reply = inspect(kernel, code)
    assert reply["found"] is False and reply["data"] == {}


def test_inspection_counts_characters_not_bytes(kernel):
    code = "'🦀🦀🦀'; isinstance"
    assert inspect(kernel, code)["found"]


# is_complete -----------------------------------------------------------------

@pytest.mark.parametrize("code", ["1", "x = 1", "print('hello')", "def f(x):\n  return x*2\n\n\n", "for n in []:\n    pass\n\n", "",
                                  "await x", "'''a\nb'''", "if x:\n    y\nelse:\n    z\n\n", "# comment", "@decorator\ndef f(): pass\n\n"])
def test_complete_code_is_complete(kernel, code):
    assert kernel.ask("is_complete_request", {"code": code})["status"] == "complete"


@pytest.mark.parametrize("code, indent", [("def f(x):", "    "), ("for n in []:\n    if n:", "        "), ("print('''hello", ""),
                                          ("f(1,", None), ("x = [1,\n", None), ("def f(x):\n  x*2", "  "), ("@decorator", ""), ("class A:\n    x = 1", "    "),
                                          ("x = 1 + \\", None), ("try:\n    pass", "    ")])
def test_incomplete_code_says_how_to_go_on(kernel, code, indent):
    reply = kernel.ask("is_complete_request", {"code": code})
    assert reply["status"] == "incomplete"
    if indent is not None:
        assert reply["indent"] == indent


@pytest.mark.parametrize("code", ["import = 7q", "x = = 1", ")", "def f(x) return", "  x = 1\n y = 2\n\n"])
def test_wrong_code_is_invalid(kernel, code):
    assert kernel.ask("is_complete_request", {"code": code})["status"] == "invalid"


@pytest.mark.parametrize("code", ["%timeit 1", "!ls", "x = !ls", "print?"])
def test_magics_are_complete(rich, code):
    assert rich.ask("is_complete_request", {"code": code})["status"] == "complete"


@pytest.mark.parametrize("code", ["x = !ls", "lines, = %magic", "    x = !ls"])
def test_the_value_of_a_magic_is_complete_before_ipython_is_loaded(bare, code):
    # It was judged by the plain compiler, to which it is an error, unless a cell had loaded IPython before.
    assert bare.ask("is_complete_request", {"code": code})["status"] == "complete"
    assert bare.ask("is_complete_request", {"code": "x = = !ls"})["status"] == "invalid"


# History ---------------------------------------------------------------------

def history(kernel, **request):
    return kernel.ask("history_request", {"raw": True, "output": False, "hist_access_type": "tail", **request})["history"]


def codes(entries):
    return [entry[2] for entry in entries]


def test_the_tail_is_the_last_inputs(kernel):
    for n in range(4):
        kernel.run(f"tail_{n} = {n}").ok()
    assert codes(history(kernel, n=3)) == ["tail_1 = 1", "tail_2 = 2", "tail_3 = 3"]


def test_the_numbers_of_the_history_are_those_of_the_cells(kernel):
    run = kernel.run("numbered = 1").ok()
    [(session, line, code)] = history(kernel, n=1)
    assert (line, code) == (run.count, "numbered = 1") and session >= 0


def test_what_was_not_stored_is_not_in_the_history(kernel):
    kernel.run("stored = 1").ok()
    kernel.run("not_stored = 1", store_history=False).ok()
    kernel.run("silent = 1", silent=True).ok()
    assert codes(history(kernel, n=1)) == ["stored = 1"]


def test_a_range_of_the_current_session(kernel):
    first = kernel.run("range_a = 1").ok()
    kernel.run("range_b = 1").ok()
    third = kernel.run("range_c = 1").ok()
    entries = history(kernel, hist_access_type="range", session=0, start=first.count, stop=third.count)
    assert codes(entries) == ["range_a = 1", "range_b = 1"]


def test_a_search_takes_globs(kernel):
    kernel.run("needle_1 = 'x'").ok()
    kernel.run("hay = 1").ok()
    kernel.run("needle_2 = 'x'").ok()
    assert codes(history(kernel, hist_access_type="search", pattern="needle_? = *", n=10))[-2:] == ["needle_1 = 'x'", "needle_2 = 'x'"]
    assert codes(history(kernel, hist_access_type="search", pattern="needle_3*", n=10)) == []


def test_a_search_may_be_unique_and_bounded(kernel):
    for _ in range(3):
        kernel.run("repeated = 'same'").ok()
    kernel.run("repeated = 'other'").ok()
    unique = codes(history(kernel, hist_access_type="search", pattern="repeated*", n=10, unique=True))
    assert sorted(unique) == ["repeated = 'other'", "repeated = 'same'"]
    assert codes(history(kernel, hist_access_type="search", pattern="repeated*", n=1)) == ["repeated = 'other'"]


@pytest.mark.cob_only("keeps no outputs in its history")
def test_outputs_come_with_the_history_when_asked(kernel):
    kernel.run("6 * 7").ok()
    kernel.run("no_output = 1").ok()
    entries = history(kernel, n=2, output=True)
    assert [list(entry[2]) for entry in entries] == [["6 * 7", "42"], ["no_output = 1", None]]


def test_history_asked_too_much_or_too_little(kernel):
    assert len(history(kernel, n=100_000)) >= 1
    assert history(kernel, n=0) == []
