"""Real notebooks, run by the tools that people use: nbclient and papermill.

What the outputs must be stands here, not in the notebooks.
"""
import os
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from support import target
from support.kernel import spec_manager
from support.outputs import without_colour

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def text(value):
    """Colours, carriage returns and addresses are not what these tests are about."""
    return re.sub(r"0x[0-9a-f]+", "0x…", without_colour(value).replace("\r", ""))


def shown(cell):
    """The outputs of a cell as short lines: what a reader sees."""
    lines = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if lines and lines[-1][0] == output.name:
                lines[-1] = (output.name, lines[-1][1] + text(output.text))
            else:
                lines.append((output.name, text(output.text)))
        elif output.output_type == "error":
            lines.append(("error", f"{output.ename}: {output.evalue}"))
        else:
            kinds = [mime for mime in output.data if mime != "text/plain"]
            lines.append((output.output_type, ", ".join(kinds) or text(output.data["text/plain"])))
    return lines


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(value):
    return [("stdout", value)]


def result(value):
    return [("execute_result", value)]


PICTURE = ("display_data", "image/png")

EXPECTED = {
    "demo": [printed(None), result("text/html"), [PICTURE], printed(None), result(None)],
    "data": [[], [("stdout", "rows: 120\n"), ("execute_result", "text/html")], result("text/html"), [PICTURE],
             result("['Ada', 'Edsger', 'Grace']"), result("text/markdown")],
    "widgets": [result("application/vnd.jupyter.widget-view+json"), result("212.0"), result("application/vnd.jupyter.widget-view+json"),
                printed("into the cell\n"), None],
    "async": [[], result("[0, 1, 2]"), printed("number 0\nnumber 1\nnumber 2\n"), result(r"b'\ncba'"), printed("[0, 1, 4, 9]\n")],
    "magics": [printed("Writing greet.py\n"), printed("hello, from a script\n"), printed("one\ntwo\n"), result("3"),
               printed("bash 1\nbash 2\nbash 3\n"), [("stdout", "env: GREETING=hi\n"), ("execute_result", "'hi'")], [],
               result(r"'not shown\n'"), result("True"), result("True")],
    "errors": [[], [("error", "ZeroDivisionError: division by zero")], [("error", "IndexError: list index out of range")],
               [("error", "SyntaxError: *")], [("error", "RuntimeError: could not read the number")],
               [("stderr", "to stderr\n")], printed("still here 2.0\n")],
    "display": [[("display_data", "text/html"), ("display_data", "text/markdown"), ("display_data", "text/latex"),
                 ("display_data", "application/json"), ("execute_result", "image/svg+xml")],
                result("text/html"), [("display_data", "'3 of 3'")], printed("this stays\n"), [PICTURE, PICTURE]],
    "processes": [printed("python\nc\ndescriptor\nchild\npython again\n"), result(r"'captured\n'"),
                  printed("thread 0\nthread 1\nthread 2\n"), result("[0, 1, 4, 9, 16]")],
    "plain": [[], result("[('o', 4), ('e', 3)]"), printed('{"words": 9, "mean": 3.888888888888889}\n'),
              [("display_data", "image/svg+xml")] * 2, result("(False, True)"), result("9"), printed("last\n")],
    "javascript": [result("text/html"), [("display_data", "text/html"), ("display_data", "text/markdown"), ("display_data", "text/latex"),
                                         ("execute_result", "application/json")],
                   result("image/png"), result("image/svg+xml"), [("stdout", "number 0\nnumber 1\nnumber 2\n"), ("execute_result", "[ 1, 4, 9 ]")],
                   [("display_data", '"3 of 3"')], [("error", "TypeError: *")], result("text/html"), printed("stays\n"), result("text/html"),
                   [("stderr", "oops\n"), ("stdout", "later\n"), ("execute_result", 'Map(1) { "a" => 1 }')]],
}
RICH = [name for name in EXPECTED if name not in ("plain", "javascript")]


def check(name, notebook):
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert len(cells) == len(EXPECTED[name])
    for number, (cell, expected) in enumerate(zip(cells, EXPECTED[name]), 1):
        if expected is None:
            continue  # shown in a way of its own: the numbers after it tell
        found = shown(cell)
        assert [kind for kind, _ in found] == [kind for kind, _ in expected], f"{name}, cell {number}: {found}"
        for (_, value), (_, wanted) in zip(found, expected):
            if wanted and wanted.endswith("*"):
                assert value.startswith(wanted[:-1]), f"{name}, cell {number}"
            elif wanted is not None:
                assert value == wanted, f"{name}, cell {number}"


def check_counts(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def execute(name, kernelspecs, folder, kernel):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, kernel_name=kernel, timeout=120, resources={"metadata": {"path": str(folder)}})
    client.create_kernel_manager()
    client.km.kernel_spec_manager = spec_manager(kernelspecs)
    client.execute()
    return notebook


@pytest.mark.parametrize("name", RICH)
def test_nbclient_runs(name, kernelspecs, tmp_path):
    if name == "processes" and not target.IS_COB:
        pytest.skip("ipykernel: reads the pipe of C output in another thread")
    notebook = execute(name, kernelspecs, tmp_path, "rich")
    check(name, notebook)
    check_counts(notebook)


def test_nbclient_runs_plain_notebooks_in_an_empty_environment(kernelspecs, tmp_path):
    notebook = execute("plain", kernelspecs, tmp_path, "bare")
    check("plain", notebook)
    check_counts(notebook)


@pytest.mark.cob_only("runs Python")
def test_nbclient_runs_a_notebook_in_typescript(kernelspecs, tmp_path):
    notebook = execute("javascript", kernelspecs, tmp_path, "javascript")
    check("javascript", notebook)
    check_counts(notebook)
    # What nbconvert names the script by, and colours the code with.
    info = notebook.metadata.language_info
    assert (info.name, info.file_extension, info.pygments_lexer, info.nbconvert_exporter) == ("typescript", ".ts", "typescript", "script")


def test_nbclient_stops_at_an_error(kernelspecs, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in ("print(1)", "1/0", "print('never')")])
    client = NotebookClient(notebook, kernel_name="bare", timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager()
    client.km.kernel_spec_manager = spec_manager(kernelspecs)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        client.execute()
    assert [shown(cell) for cell in notebook.cells] == [printed("1\n"), [("error", "ZeroDivisionError: division by zero")], []]


def test_widget_state_is_saved_in_the_notebook(kernelspecs, tmp_path):
    notebook = execute("widgets", kernelspecs, tmp_path, "rich")
    state = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    sliders = [entry["state"] for entry in state.values() if entry["model_name"] == "FloatSliderModel"]
    assert [slider["value"] for slider in sliders] == [100]
    [area] = [entry["state"] for entry in state.values() if entry["model_name"] == "OutputModel"]
    assert [output["text"] for output in area["outputs"]] == ["into the output area\n"]


@pytest.fixture
def jupyter_path(kernelspecs, monkeypatch):
    """Papermill looks kernels up by itself."""
    monkeypatch.setenv("JUPYTER_PATH", str(kernelspecs.parent))


def run_papermill(name, tmp_path, kernel, **parameters):
    output = tmp_path / f"{name}.ipynb"
    papermill.execute_notebook(NOTEBOOKS / f"{name}.ipynb", output, parameters=parameters, kernel_name=kernel, cwd=str(tmp_path),
                               progress_bar=False, log_output=False)
    return nbformat.read(output, as_version=4)


def test_papermill_passes_parameters_to_a_rich_notebook(jupyter_path, tmp_path):
    notebook = run_papermill("data", tmp_path, "rich", rows=7, seed=1)
    cells = code_cells(notebook)
    assert "injected-parameters" in cells[1].metadata.tags
    assert ("stdout", "rows: 7\n") in shown(cells[2])


@pytest.mark.cob_only("runs Python")
def test_papermill_runs_a_notebook_in_typescript_and_tells_its_error(jupyter_path, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="reading 'people'"):
        run_papermill("javascript", tmp_path, "javascript")
    check("javascript", nbformat.read(tmp_path / "javascript.ipynb", as_version=4))


def test_papermill_passes_parameters_to_a_plain_notebook(jupyter_path, tmp_path):
    notebook = run_papermill("plain", tmp_path, "bare", text="aab")
    assert shown(code_cells(notebook)[2]) == result("[('a', 2), ('b', 1)]")


def test_papermill_keeps_the_error_of_a_failing_notebook(jupyter_path, tmp_path):
    source = tmp_path / "failing.ipynb"
    cells = [nbformat.v4.new_code_cell(code) for code in ("print('before')", "raise ValueError('stop')", "print('never')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    with pytest.raises(papermill.PapermillExecutionError, match="stop"):
        papermill.execute_notebook(source, tmp_path / "out.ipynb", kernel_name="bare", cwd=str(tmp_path), progress_bar=False)
    assert os.path.exists(tmp_path / "out.ipynb")


def test_papermill_runs_all_notebooks_that_need_no_shell(jupyter_path, tmp_path):
    for name in ("demo", "async", "display"):
        check(name, run_papermill(name, tmp_path, "rich"))
