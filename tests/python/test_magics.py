"""Magics, shell escapes and plots: through IPython when the user's Python has it."""
import base64

import pytest


def test_time_magics(rich):
    run = rich.run("%time x = sum(range(10))\nx").ok()
    assert "Wall time" in run.stdout and run.result == "45"
    run = rich.run("%%time\ny = 1\ny").ok()
    assert "Wall time" in run.stdout and run.result == "1"
    assert rich.run("y").ok().result == "1"


def test_timeit(rich):
    assert "per loop" in rich.run("%timeit -n1 -r1 sum(range(10))").ok().stdout
    assert "per loop" in rich.run("%%timeit -n1 -r1\nsum(range(10))").ok().stdout


def test_environment_magic(rich):
    rich.run("%env COB_TEST_VALUE=from magic").ok()
    assert rich.run("import os; os.environ['COB_TEST_VALUE']").ok().result == "'from magic'"


def test_directory_magics(rich):
    assert rich.run("%pwd").ok().result == repr(str(rich.cwd))
    rich.run("import os\nos.makedirs('sub', exist_ok=True)\n%cd -q sub").ok()
    assert rich.run("os.getcwd()").ok().result == repr(str(rich.cwd / "sub"))
    rich.run("%cd -q ..").ok()


def test_writefile_and_run(rich):
    assert "script.py" in rich.run("%%writefile script.py\nimport sys\nprint('script ran', sys.argv[1:], __name__)\nfrom_script = 5\n").ok().stdout
    assert "script ran ['a', 'b'] __main__\n" in rich.run("%run script.py a b").ok().stdout
    assert rich.run("from_script").ok().result == "5"
    assert (rich.cwd / "script.py").read_text().startswith("import sys")


def test_shell_escape_prints(rich):
    assert rich.run("!echo hi").ok().stdout.replace("\r", "") == "hi\n"


def test_shell_escape_takes_variables(rich):
    assert rich.run("name = 'value'\n!echo {name} $name").ok().stdout.replace("\r", "") == "value value\n"


def test_shell_escape_assigns(rich):
    assert rich.run("lines = !printf 'a\\nb\\n'\nlist(lines)").ok().result == "['a', 'b']"


def test_shell_escape_keeps_its_place(rich):
    run = rich.run("print('before')\n!echo during\nprint('after')").ok()
    assert run.stdout.replace("\r", "") == "before\nduring\nafter\n"


def test_shell_escape_can_be_interrupted(rich):
    run = rich.execute("!echo ready; sleep 600").printed("ready")
    rich.interrupt()
    run.wait()
    assert rich.run("1 + 1").ok().result == "2"


def test_bash_cell(rich):
    assert rich.run("%%bash\nfor n in 1 2; do echo line $n; done").ok().stdout == "line 1\nline 2\n"
    failed = rich.run("%%bash\nexit 3")
    assert failed.reply["ename"] == "CalledProcessError"


def test_capture(rich):
    run = rich.run("%%capture captured\nprint('caught')\nimport sys\nprint('err', file=sys.stderr)\ndisplay('shown')").ok()
    assert run.outputs.plain() == []
    assert rich.run("captured.stdout, captured.stderr, len(captured.outputs)").ok().result == "('caught\\n', 'err\\n', 1)"


def test_capture_of_a_block(rich):
    run = rich.run("from IPython.utils.capture import capture_output\nwith capture_output() as c:\n    print('caught')\nprint('free')\nc.stdout").ok()
    assert run.stdout == "free\n" and run.result == "'caught\\n'"


def test_who_and_reset(rich):
    rich.run("a_name_to_list = 1").ok()
    assert "a_name_to_list" in rich.run("%who").ok().stdout
    assert "a_name_to_list" in rich.run("%whos").ok().stdout
    rich.run("%reset -f").ok()
    assert rich.run("a_name_to_list").reply["ename"] == "NameError"
    assert rich.run("1 + 1").ok().result == "2"


def test_extensions_can_be_loaded(rich):
    (rich.cwd / "own_extension.py").write_text(
        "def load_ipython_extension(ipython):\n    ipython.register_magic_function(lambda line: 'magic ' + line, 'line', 'own_magic')\n")
    rich.run("%load_ext own_extension").ok()
    assert rich.run("%own_magic of mine").ok().result == "'magic of mine'"


def test_autoreload(rich):
    module = rich.cwd / "reloaded.py"
    module.write_text("value = 'first'\n")
    rich.run("%load_ext autoreload\n%autoreload 2\nimport reloaded").ok()
    assert rich.run("reloaded.value").ok().result == "'first'"
    module.write_text("value = 'the second'\n")
    assert rich.run("reloaded.value").ok().result == "'the second'"
    rich.run("%autoreload 0").ok()


def test_own_magics_can_be_registered_in_a_cell(rich):
    rich.run("from IPython.core.magic import register_line_magic, register_cell_magic\n"
             "@register_line_magic\ndef shout(line): return line.upper()\n"
             "@register_cell_magic\ndef count(line, cell): return len(cell.splitlines())").ok()
    assert rich.run("%shout hello").ok().result == "'HELLO'"
    assert rich.run("%%count\na\nb\nc").ok().result == "3"


def test_magic_in_an_assignment_and_in_a_block(rich):
    assert rich.run("here = %pwd\nif True:\n    there = %pwd\nhere == there").ok().result == "True"


def test_an_unknown_magic_says_so(rich):
    run = rich.run("%no_such_magic")
    assert "no_such_magic" in run.stderr + str(run.reply)


def test_history_and_recall_magics(rich):
    rich.run("recall_me = 1").ok()
    assert "recall_me = 1" in rich.run("%history").ok().stdout
    run = rich.run("%recall").ok()
    assert any(p["source"] == "set_next_input" for p in run.reply["payload"])


def test_get_ipython_offers_what_libraries_use(rich):
    run = rich.run("ip = get_ipython()\nip.run_line_magic('pwd', ''), ip.user_ns is globals(), hasattr(ip, 'kernel'), "
                   "ip.run_cell('from_run_cell = 3').success").ok()
    assert run.result == f"({str(rich.cwd)!r}, True, True, True)"
    assert rich.run("from_run_cell").ok().result == "3"


def test_event_hooks_of_ipython_run_around_cells(rich):
    rich.run("calls = []\ndef before(info): calls.append(('pre', info.raw_cell))\ndef after(result): calls.append(('post', result.success))\n"
             "get_ipython().events.register('pre_run_cell', before)\nget_ipython().events.register('post_run_cell', after)").ok()
    rich.run("hooked = 1").ok()
    calls = rich.run("get_ipython().events.unregister('pre_run_cell', before)\nget_ipython().events.unregister('post_run_cell', after)\ncalls[:]").ok().result
    assert "('pre', 'hooked = 1')" in calls and "('post', True)" in calls


def test_exceptions_in_magics_are_errors_of_the_cell(rich):
    assert rich.run("%run no_such_script.py").status in ("ok", "error")
    assert rich.run("%time 1/0").reply["ename"] == "ZeroDivisionError"
    assert rich.run("1 + 1").ok().result == "2"


def test_await_and_magic_in_one_cell(rich):
    assert rich.run("import asyncio\nhere = %pwd\nawait asyncio.sleep(0)\nhere").ok().result == repr(str(rich.cwd))


@pytest.mark.cob_only("has IPython everywhere")
@pytest.mark.parametrize("code", ["%pwd", "!ls", "%%time\n1", "x = !ls"])
def test_without_ipython_a_magic_says_how_to_get_them(bare, code):
    run = bare.run(code)
    assert run.status == "error"
    assert "install ipython" in f"{run.reply['evalue']} {run.reply['traceback']}".lower()


@pytest.mark.cob_only("has IPython everywhere")
def test_a_percent_sign_of_python_is_no_magic(bare):
    assert bare.run("x = 7\ny = (x\n  % 4)\ny").ok().result == "3"


# Libraries -------------------------------------------------------------------

def test_frames_are_tables(rich):
    run = rich.run("import pandas as pd\npd.DataFrame({'city': ['Oslo', 'Kraków'], 'n': [1, 2]})").ok()
    data = run.outputs.result
    assert "<table" in data["text/html"] and "Kraków" in data["text/html"]
    assert "Kraków" in data["text/plain"]


def png_of(data):
    picture = base64.b64decode(data["image/png"])
    assert picture.startswith(b"\x89PNG\r\n\x1a\n") and picture.endswith(b"IEND\xaeB`\x82")
    return picture


def test_a_figure_is_shown_at_the_end_of_its_cell(rich):
    run = rich.run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);\nprint('drawn')").ok()
    assert run.outputs.plain()[0] == ("stdout", "drawn\n")
    [data] = run.outputs.displays
    assert len(png_of(data)) > 1000 and data["text/plain"].startswith("<Figure size")


def test_show_shows_a_figure_where_it_is_called(rich):
    run = rich.run("import matplotlib.pyplot as plt\nfor n in range(2):\n    print('before', n)\n    plt.plot([n, 1]); plt.show()\nprint('after')").ok()
    assert [kind for kind, _ in run.outputs.plain()] == ["stdout", "display_data", "stdout", "display_data", "stdout"]


def test_a_figure_as_the_result_is_a_picture(rich):
    run = rich.run("import matplotlib.pyplot as plt\nfigure, axis = plt.subplots()\nplt.close(figure)\nfigure").ok()
    png_of(run.outputs.result)


def test_no_figure_is_shown_twice(rich):
    rich.run("import matplotlib.pyplot as plt\nplt.plot([1]); plt.show()").ok()
    assert rich.run("plt.gcf().axes").ok().outputs.result["text/plain"] == "[]"
    rich.run("plt.close('all')").ok()
    assert rich.run("x = 1").ok().outputs.displays == []


def test_matplotlib_inline_can_be_asked_for(rich):
    run = rich.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()").ok()
    png_of(run.outputs.displays[0])


def test_inline_figures_can_be_vectors(rich):
    run = rich.run("%config InlineBackend.figure_formats = ['svg']\nimport matplotlib.pyplot as plt\nplt.plot([1]); plt.show()").ok()
    assert "<svg" in run.outputs.displays[0]["image/svg+xml"]
    rich.run("%config InlineBackend.figure_formats = ['png']").ok()


def test_a_figure_of_a_failing_cell_does_not_spoil_the_next(rich):
    assert rich.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\n1/0").status == "error"
    assert rich.run("x = 1").ok().outputs.displays == []


def test_pandas_plots_are_pictures(rich):
    run = rich.run("import pandas as pd\npd.Series([1, 3, 2]).plot();").ok()
    png_of(run.outputs.displays[0])


def test_a_progress_bar_for_notebooks(rich):
    run = rich.run("from tqdm.auto import tqdm\ntotal = 0\nfor n in tqdm(range(5)): total += n\ntotal").ok()
    assert run.result == "10"


def test_numpy_prints_and_computes(rich):
    assert rich.run("import numpy as np\nnp.arange(6).reshape(2, 3)").ok().result == "array([[0, 1, 2],\n       [3, 4, 5]])"
    assert rich.run("(np.ones((300, 300)) @ np.ones((300, 300))).sum()").ok().result == "np.float64(27000000.0)"


@pytest.mark.cob_only("is never without IPython")
def test_results_outlive_the_loading_of_ipython(own):
    kernel = own("rich")
    kernel.run("1").ok()
    kernel.run("2").ok()
    assert kernel.run("%time None\n_, __").ok().result == "(2, 1)"
    assert kernel.run("_").ok().result == "(2, 1)"
