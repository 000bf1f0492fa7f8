"""Outputs arrive in the order in which the code produced them, whoever wrote them."""
import pytest

ONE_ORDER = pytest.mark.cob_only("buffers each stream on its own")


@ONE_ORDER
def test_stdout_and_stderr_keep_their_order(kernel):
    run = kernel.run("import sys\n"
                     "for n in range(20):\n"
                     "    print('out', n)\n"
                     "    print('err', n, file=sys.stderr)\n").ok()
    expected = [pair for n in range(20) for pair in (("stdout", f"out {n}\n"), ("stderr", f"err {n}\n"))]
    assert run.outputs.plain() == expected


@ONE_ORDER
def test_prints_c_output_and_children_share_one_order(kernel):
    run = kernel.run("import ctypes, os, subprocess, sys\n"
                     "libc = ctypes.CDLL(None)\n"
                     "for n in range(3):\n"
                     "    print('print', n)\n"
                     "    libc.puts(b'puts'); libc.fflush(None)\n"
                     "    os.write(1, b'write\\n')\n"
                     "    os.system('echo system')\n"
                     "    sys.stdout.write('end\\n')\n"
                     "    subprocess.run(['echo', 'child'])\n").ok()
    expected = "".join(f"print {n}\nputs\nwrite\nsystem\nend\nchild\n" for n in range(3))
    assert run.outputs.plain() == [("stdout", expected)]


@ONE_ORDER
def test_c_output_on_stderr_keeps_its_order(kernel):
    run = kernel.run("import os, subprocess, sys\n"
                     "for n in range(3):\n"
                     "    print('a', file=sys.stderr)\n"
                     "    os.write(2, b'b\\n')\n"
                     "    subprocess.run('echo c >&2', shell=True)\n").ok()
    assert run.outputs.plain() == [("stderr", "a\nb\nc\n" * 3)]


def test_what_c_code_flushes_is_published(kernel):
    run = kernel.run("import ctypes\nlibc = ctypes.CDLL(None)\nlibc.printf(b'no newline')\nlibc.fflush(None)").ok()
    assert run.stdout == "no newline"


@pytest.mark.cob_only("leaves the buffers of C alone")
def test_what_c_code_leaves_in_its_buffer_is_published_with_the_cell(kernel):
    assert kernel.run("import ctypes\nctypes.CDLL(None).printf(b'kept by C')").ok().stdout == "kept by C"


def test_displays_come_between_the_prints_around_them(kernel):
    run = kernel.run("for n in range(5):\n"
                     "    print('before', n)\n"
                     "    display({'text/plain': f'shown {n}'}, raw=True)\n"
                     "print('last')\n"
                     "'result'\n").ok()
    expected = []
    for n in range(5):
        expected += [("stdout", f"before {n}\n"), ("display_data", f"shown {n}")]
    assert run.outputs.plain() == [*expected, ("stdout", "last\n"), ("execute_result", "'result'")]


@pytest.mark.cob_only("reads the pipe of C output in another thread")
def test_displays_come_between_c_output_and_children(kernel):
    run = kernel.run("import os, subprocess\n"
                     "for n in range(5):\n"
                     "    os.write(1, b'written\\n')\n"
                     "    display({'text/plain': 'shown'}, raw=True)\n"
                     "    subprocess.run(['echo', 'child'])\n"
                     "    display({'text/plain': 'again'}, raw=True)\n").ok()
    assert run.outputs.plain() == [("stdout", "written\n"), ("display_data", "shown"),
                                   ("stdout", "child\n"), ("display_data", "again")] * 5


def test_clear_output_keeps_its_place(rich):
    run = rich.run("from IPython.display import clear_output\nprint('one')\nclear_output()\nprint('two')").ok()
    assert [kind for kind, _ in run.outputs.plain()] == ["stdout", "clear_output", "stdout"]
    assert run.outputs.of_type("clear_output")[0].content == {"wait": False}


def test_the_error_comes_after_the_prints(kernel):
    run = kernel.run("import sys\nprint('first')\nprint('second', file=sys.stderr)\n1/0")
    assert sorted(run.outputs.plain()[:2]) == [("stderr", "second\n"), ("stdout", "first\n")]
    assert run.outputs.plain()[2:] == [("error", "ZeroDivisionError")]


def test_the_input_is_published_before_any_output(kernel):
    run = kernel.run("print('x')").ok()
    types = [m.type for m in run.messages]
    assert types[:2] == ["status", "execute_input"] and types[-1] == "status"
    assert run.messages[1].content == {"code": "print('x')", "execution_count": run.count}


def test_a_print_without_newline_is_published(kernel):
    assert kernel.run("print('no newline', end='')").ok().stdout == "no newline"


def test_a_flush_in_the_middle_is_published_before_the_cell_ends(kernel):
    run = kernel.execute("print('working', flush=True)\ninput()").printed("working\n")
    kernel.client.answer(run.asked(), "")
    run.wait().ok()


def test_text_of_every_plane_arrives_unchanged(kernel):
    text = "żółw – 日本語 – 🦀 – \x00 – \x1b[31mred\x1b[0m – \u2028"
    assert kernel.run(f"print({text!r})").ok().stdout == text + "\n"


@pytest.mark.cob_only("reads the pipe of C output in another thread")
def test_bytes_that_are_no_text_do_not_stop_the_output(kernel):
    run = kernel.run("import os\nos.write(1, b'before \\xff\\xfe after\\n')\nprint('next')").ok()
    assert "before " in run.stdout and " after\n" in run.stdout and "next\n" in run.stdout


@pytest.mark.cob_only("decodes each read of the pipe on its own")
def test_characters_split_between_writes_stay_whole(kernel):
    run = kernel.run("import os\nfor byte in 'ü🦀'.encode():\n    os.write(1, bytes([byte]))\nos.write(1, b'\\n')").ok()
    assert run.stdout == "ü🦀\n"


@ONE_ORDER
def test_a_long_alternation_of_streams_and_displays_keeps_its_order(kernel):
    """Long enough for a reader to fall behind, so that luck does not help."""
    run = kernel.run("import sys\n"
                     "for n in range(500):\n"
                     "    print('o', n)\n"
                     "    print('e', n, file=sys.stderr)\n"
                     "    if n % 10 == 0:\n"
                     "        display({'text/plain': f'd {n}'}, raw=True)\n").ok()
    expected = []
    for n in range(500):
        expected += [("stdout", f"o {n}\n"), ("stderr", f"e {n}\n")]
        if n % 10 == 0:
            expected.append(("display_data", f"d {n}"))
    assert run.outputs.plain() == expected


@ONE_ORDER
def test_a_long_mixture_of_prints_and_c_output_keeps_its_order(kernel):
    """C code writes to stdout between a print to stderr and a print to stdout."""
    run = kernel.run("import os, sys\n"
                     "for n in range(500):\n"
                     "    print('o', n)\n"
                     "    print('e', n, file=sys.stderr)\n"
                     "    os.write(1, b'w\\n')\n").ok()
    expected = [("stdout", "o 0\n")]
    for n in range(500):
        expected += [("stderr", f"e {n}\n"), ("stdout", f"w\no {n + 1}\n" if n < 499 else "w\n")]
    assert run.outputs.plain() == expected


@ONE_ORDER
def test_the_order_holds_every_time(bare):
    """What is read too early shows in one run of ten or so."""
    for _ in range(50):
        run = bare.run("import os, sys\n"
                       "for n in range(20):\n"
                       "    os.write(1, b'written\\n')\n"
                       "    display({'text/plain': 'shown'}, raw=True)\n"
                       "    os.system('echo child')\n"
                       "    print('err', file=sys.stderr)\n"
                       "    print('out')\n"
                       "    display({'text/plain': 'again'}, raw=True)\n").ok()
        assert run.outputs.plain() == [("stdout", "written\n"), ("display_data", "shown"), ("stdout", "child\n"),
                                       ("stderr", "err\n"), ("stdout", "out\n"), ("display_data", "again")] * 20


@pytest.mark.cob_only("its sockets are served by different threads")
def test_reply_leaves_after_the_outputs_and_before_idle(kernel):
    """Clients stop at the reply, or at idle: what was printed must be there at both."""
    for n in range(50):
        run = kernel.execute("print('x' * 1000)")
        kernel.client.until(lambda: run.reply_message)
        kernel.client.until(lambda: run.stdout.endswith("\n"), patience=5)
        run.wait()
