"""Tracebacks show the source of the cells they went through."""
import re

import pytest

from support.outputs import without_colour


def text_of(run):
    """The traceback without colours."""
    assert run.status == "error", run.reply
    assert run.reply["traceback"] == run.error["traceback"]
    return without_colour("\n".join(run.error["traceback"]))


def test_a_traceback_names_cell_and_line_and_shows_the_source(kernel):
    run = kernel.run("x = 1\ny = 0\nx / y  # this line")
    text = text_of(run)
    assert f"Cell In[{run.count}], line 3" in text
    assert "x / y  # this line" in text
    assert text.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_function_of_an_earlier_cell_shows_its_own_source(kernel):
    first = kernel.run("def divide(a, b):\n    # a comment\n    return a / b  # in divide").ok()
    second = kernel.run("x = 1\ny = 2\ndivide(1, 0)  # the call")
    text = text_of(second)
    assert f"Cell In[{first.count}], line 3" in text and "return a / b  # in divide" in text
    assert f"Cell In[{second.count}], line 3" in text and "divide(1, 0)  # the call" in text
    assert text.index("the call") < text.index("in divide")


def test_redefined_functions_show_the_source_they_were_made_from(kernel):
    kernel.run("def f():\n    raise ValueError('old')  # old source\nold = f").ok()
    kernel.run("def f():\n    pass  # new source").ok()
    assert "# old source" in text_of(kernel.run("old()"))


def test_library_frames_name_their_file(kernel):
    text = text_of(kernel.run("import json\njson.loads('{')"))
    assert "json" in text and "JSONDecodeError" in text and "decoder.py" in text


def test_no_frame_of_the_kernel_itself_is_shown(kernel):
    frames = re.findall(r"(?:File|Cell) [^\n]*", text_of(kernel.run("1/0")))
    assert len(frames) == 1 and "Cell In" in frames[0]


def test_a_cause_is_shown_before_its_effect(kernel):
    text = text_of(kernel.run("try:\n    int('x')\nexcept ValueError as e:\n    raise RuntimeError('effect') from e"))
    assert "direct cause" in text
    assert text.index("ValueError") < text.index("direct cause") < text.rindex("RuntimeError: effect")


def test_an_error_during_handling_is_shown_as_such(kernel):
    text = text_of(kernel.run("try:\n    1/0\nexcept ZeroDivisionError:\n    {}['key']"))
    assert "During handling of the above exception" in text
    assert text.index("division by zero") < text.rindex("KeyError: 'key'")


def test_from_none_hides_the_context(kernel):
    text = text_of(kernel.run("try:\n    1/0\nexcept ZeroDivisionError:\n    raise KeyError('key') from None"))
    assert "division by zero" not in text


def test_a_syntax_error_points_at_its_place(kernel):
    run = kernel.run("good = 1\nbad = = 2")
    text = text_of(run)
    lines = text.splitlines()
    assert f"Cell In[{run.count}], line 2" in text
    [source] = [n for n, line in enumerate(lines) if line.strip() == "bad = = 2"]
    assert lines[source + 1].strip().startswith("^")
    assert lines[source + 1].index("^") - lines[source].index("bad") == 6
    assert "SyntaxError: invalid syntax" in text


def test_an_indentation_error_points_at_its_line(kernel):
    text = text_of(kernel.run("if True:\nx = 1"))
    assert "line 2" in text and "IndentationError" in text


def test_the_code_before_a_syntax_error_does_not_run(kernel):
    assert kernel.run("print('ran')\n(").stdout == ""


def test_a_syntax_error_in_an_imported_module_names_the_file(kernel):
    (kernel.cwd / "broken_module.py").write_text("x = = 1\n")
    text = text_of(kernel.run("import broken_module"))
    assert "broken_module.py" in text and "SyntaxError" in text


def has_groups(kernel):
    return kernel.value("list(__import__('sys').version_info[:2])") >= [3, 11]


def test_notes_are_shown(kernel):
    if has_groups(kernel):
        assert "a note" in text_of(kernel.run("e = ValueError('noted')\ne.add_note('a note')\nraise e"))


@pytest.mark.cob_only("prints groups on stderr and publishes no error")
def test_groups_show_their_members(kernel):
    if has_groups(kernel):
        run = kernel.run("raise ExceptionGroup('several', [ValueError('one'), TypeError('two')])")
        assert run.error["ename"] == "ExceptionGroup"
        assert all(text in text_of(run) for text in ("several", "ValueError: one", "TypeError: two"))


def test_deep_recursion_gives_a_bounded_traceback(kernel):
    run = kernel.run("def deep(n): return deep(n + 1)\ndeep(0)")
    assert run.error["ename"] == "RecursionError"
    assert len("".join(run.error["traceback"])) < 1_000_000


def test_errors_of_decorated_multi_line_and_nested_code(kernel):
    text = text_of(kernel.run("def outer():\n    def inner(value):\n        return (value +\n                'text')  # inner end\n    return inner(1)\nouter()"))
    assert "TypeError" in text and "return (value +" in text and "return inner(1)" in text


def test_the_traceback_module_and_inspect_find_the_source_of_cells(kernel):
    kernel.run("import inspect, traceback\ndef known():\n    return 1/0  # known source").ok()
    assert "# known source" in kernel.run("print(inspect.getsource(known))").ok().stdout
    assert "# known source" in kernel.run("try: known()\nexcept ZeroDivisionError: print(traceback.format_exc())").ok().stdout


def test_the_last_error_can_be_looked_at_afterwards(kernel):
    kernel.run("[][5]")
    assert kernel.run("import sys\nsys.last_type.__name__, str(sys.last_value), sys.last_traceback is not None").ok().result \
        == "('IndexError', 'list index out of range', True)"


def test_warnings_are_on_stderr_with_their_line(kernel):
    run = kernel.run("import warnings\nwarnings.warn('take care')").ok()
    assert "UserWarning: take care" in run.stderr


def test_an_assertion_shows_its_message(kernel):
    run = kernel.run("assert 1 == 2, 'not the same'")
    assert (run.error["ename"], run.error["evalue"]) == ("AssertionError", "not the same")


def test_the_error_of_an_await_shows_the_lines_of_the_coroutine(kernel):
    text = text_of(kernel.run("async def fail():\n    raise ValueError('x')  # in coroutine\nawait fail()  # awaited here"))
    assert "# in coroutine" in text and "# awaited here" in text
