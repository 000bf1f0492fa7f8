"""The command line: outcomes decide exit codes, and wrong use gets one clear sentence."""
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from support import target

pytestmark = pytest.mark.cob_only("has no such commands")


def cob(*arguments, cwd=None, stdin=subprocess.DEVNULL, env=None, **options):
    command = [target.COB, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, stdin=stdin, capture_output=True, text=True, timeout=120,
                          env={**os.environ, **(env or {})}, **options)


def run(*arguments, python=target.BARE, **options):
    return cob("run", "--python", python, *arguments, **options)


def check_refused(done, *words):
    """Exit code 2 and one sentence on stderr that names what is wrong; nothing on stdout."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.strip() and "panicked" not in done.stderr and "Traceback" not in done.stderr
    for word in words:
        assert str(word) in done.stderr


def write_notebook(path, *codes):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    nbformat.write(notebook, path)
    return path


# cob run ---------------------------------------------------------------------

def test_version_and_help():
    assert cob("--version").stdout.startswith("cob ")
    for command in ((), ("run",), ("install",), ("kernel",), ("doctor",)):
        done = cob(*command, "--help")
        assert done.returncode == 0 and "Usage:" in done.stdout


def test_run_code_prints_output_and_result():
    done = run("-c", "import sys\nprint('printed')\nprint('to stderr', file=sys.stderr)\n6 * 7")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "printed\n42\n"
    assert done.stderr == "to stderr\n"


def test_run_code_that_fails_is_exit_code_1():
    done = run("-c", "print('before')\n1/0")
    assert done.returncode == 1
    assert done.stdout == "before\n"
    assert "ZeroDivisionError: division by zero" in done.stderr and "Cell In" in done.stderr


def test_run_code_with_a_syntax_error_is_exit_code_1():
    assert run("-c", "x = = 1").returncode == 1


@pytest.mark.parametrize("code, exit_code", [("import sys; sys.exit(7)", 7), ("import sys; sys.exit()", 0), ("raise SystemExit('sentence')", 1)])
def test_sys_exit_decides_the_exit_code(code, exit_code):
    assert run("-c", code).returncode == exit_code


def test_run_a_script_with_arguments(tmp_path):
    (tmp_path / "beside.py").write_text("value = 'from beside'\n")
    script = tmp_path / "script.py"
    script.write_text("import sys, beside\nprint(sys.argv[1:], beside.value, __name__)\n")
    done = run(script, "a", "--flag", cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['a', '--flag'] from beside __main__\n"


def test_run_code_from_stdin(tmp_path):
    (tmp_path / "code").write_text("print('from stdin')")
    with open(tmp_path / "code") as code:
        assert run("-", stdin=code).stdout == "from stdin\n"


def test_run_a_notebook_writes_its_outputs_back(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "print('one')\nprint('two')", "6 * 7", "display('shown')", "import os; os.getcwd()")
    done = run(notebook, cwd="/")
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(notebook, as_version=4)
    nbformat.validate(executed)
    first, second, third, fourth = executed.cells
    assert [(o.output_type, o.name, o.text) for o in first.outputs] == [("stream", "stdout", "one\ntwo\n")]
    assert second.outputs[0].output_type == "execute_result" and second.outputs[0].execution_count == 2
    assert second.outputs[0].data["text/plain"] == "42"
    assert third.outputs[0].output_type == "display_data"
    assert fourth.outputs[0].data["text/plain"] == repr(str(tmp_path))
    assert [cell.execution_count for cell in executed.cells] == [1, 2, 3, 4]
    assert executed.metadata["language_info"]["name"] == "python"


def test_running_a_notebook_changes_nothing_but_outputs(tmp_path):
    source = Path(__file__).parent.parent / "notebooks" / "plain.ipynb"
    copy = tmp_path / "plain.ipynb"
    copy.write_bytes(source.read_bytes())
    assert run(copy).returncode == 0
    before, after = (nbformat.read(path, as_version=4) for path in (source, copy))
    for one, other in zip(before.cells, after.cells):
        assert (one.cell_type, one.source, one.id, one.metadata) == (other.cell_type, other.source, other.id, other.metadata)
    assert after.metadata.kernelspec == before.metadata.kernelspec


def test_running_a_notebook_again_replaces_its_outputs(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "print('once')")
    run(notebook)
    first = notebook.read_bytes()
    assert run(notebook).returncode == 0
    assert notebook.read_bytes() == first


def test_output_goes_to_another_file_when_asked(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "print('x')")
    before = notebook.read_bytes()
    assert run(notebook, "--output", tmp_path / "out.ipynb").returncode == 0
    assert notebook.read_bytes() == before
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs


def test_a_failing_notebook_keeps_its_error_and_stops(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "print('before')", "raise ValueError('stop')", "print('never')")
    done = run(notebook)
    assert done.returncode == 1 and "ValueError: stop" in done.stderr
    executed = nbformat.read(notebook, as_version=4)
    nbformat.validate(executed)
    assert executed.cells[0].outputs[0].text == "before\n"
    error = executed.cells[1].outputs[0]
    assert (error.output_type, error.ename, error.evalue) == ("error", "ValueError", "stop") and error.traceback
    assert executed.cells[2].outputs == [] and executed.cells[2].execution_count is None


def test_allow_errors_runs_to_the_end(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "1/0", "print('ran')")
    assert run("--allow-errors", notebook).returncode == 1
    assert nbformat.read(notebook, as_version=4).cells[1].outputs[0].text == "ran\n"


def test_cells_that_may_fail_do_not_stop_a_notebook(tmp_path):
    notebook = write_notebook(tmp_path / "n.ipynb", "1/0", "print('ran')")
    document = nbformat.read(notebook, as_version=4)
    document.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(document, notebook)
    assert run(notebook).returncode == 0


@pytest.mark.parametrize("name", ["demo", "data", "async", "magics", "errors", "display", "processes"])
def test_rich_notebooks_run_to_the_end(name, tmp_path):
    from test_notebooks import NOTEBOOKS, check, check_counts
    copy = tmp_path / f"{name}.ipynb"
    copy.write_bytes((NOTEBOOKS / f"{name}.ipynb").read_bytes())
    done = run(copy, python=target.RICH)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(copy, as_version=4)
    check(name, executed)
    check_counts(executed)


def test_json_is_one_object_per_line(tmp_path):
    done = run("--json", "-c", "print('printed')\ndisplay('shown')\n6 * 7")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    types = [line["type"] for line in lines]
    assert types[-1] == "end" and lines[-1]["exit_code"] == 0
    assert [t for t in types if t != "stream"] == ["display_data", "execute_result", "execute_reply", "end"]
    assert "".join(line["content"]["text"] for line in lines if line["type"] == "stream") == "printed\n"


def test_json_tells_of_failures():
    done = run("--json", "-c", "1/0")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and lines[-1] == {"type": "end", "status": "error", "exit_code": 1}
    assert [line["content"]["ename"] for line in lines if line["type"] == "error"] == ["ZeroDivisionError"]


def test_a_lost_worker_is_exit_code_1_and_a_sentence():
    done = run("-c", "print('before', flush=True)\nimport os; os._exit(3)")
    assert done.returncode == 1
    assert done.stdout == "before\n" and "WorkerLost" in done.stderr


def test_input_is_read_from_stdin(tmp_path):
    (tmp_path / "answers").write_text("Ada\n")
    with open(tmp_path / "answers") as answers:
        done = run("-c", "print('Hello', input())", stdin=answers)
    assert done.returncode == 0 and "Hello Ada" in done.stdout


def test_the_end_of_stdin_is_an_end_of_file_for_input():
    done = run("-c", "input()")
    assert done.returncode == 1 and "EOFError" in done.stderr


def test_ctrl_c_interrupts_the_code():
    process = subprocess.Popen([target.COB, "run", "--python", target.BARE, "-c", "print('ready', flush=True)\nwhile True: pass"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "KeyboardInterrupt" in stderr


def test_a_reader_that_goes_away_ends_the_run():
    process = subprocess.Popen([target.COB, "run", "--python", target.BARE, "-c", "while True: print('y' * 1000)"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) != 0


def test_a_kernelspec_can_be_named(kernelspecs):
    done = cob("run", "--kernel", "bare", "-c", "import sys; sys.executable", env={"JUPYTER_PATH": str(kernelspecs.parent)})
    assert done.stdout == repr(target.BARE) + "\n"


# Wrong use -------------------------------------------------------------------

def test_a_missing_file_is_named():
    check_refused(run("no-such.ipynb"), "no-such.ipynb")
    check_refused(run("no-such.py"), "no-such.py")


@pytest.mark.parametrize("content", ["", "not json", "[]", "{", "{}", '{"cells": 5}', '{"nbformat": 4, "cells": [5]}', '{"nbformat": 99, "cells": []}',
                                     "\x00\xff", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}'])
def test_what_is_no_notebook_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "broken.ipynb"
    path.write_text(content)
    check_refused(run(path), "broken.ipynb")
    assert path.read_text() == content


def test_a_folder_is_no_notebook(tmp_path):
    (tmp_path / "folder.ipynb").mkdir()
    check_refused(run(tmp_path / "folder.ipynb"), "folder.ipynb")


def test_an_unknown_kernel_is_named():
    check_refused(cob("run", "--kernel", "no-such-kernel", "-c", "1"), "no-such-kernel")


def test_a_nonexistent_interpreter_is_named():
    for command in (("run", "-c", "1"), ("install", "--prefix", "/tmp/never")):
        check_refused(cob(command[0], "--python", "/no/such/python", *command[1:]), "/no/such/python")


def test_a_program_that_is_no_python_is_refused():
    check_refused(run("-c", "1", python="/bin/true"), "/bin/true")
    check_refused(cob("install", "--python", "/bin/true", "--prefix", "/tmp/never"), "/bin/true")


def old_pythons():
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # HOME is not the user's own in these tests
    return sorted(home.glob(".pyenv/versions/3.[89].*/bin/python3"))[:2]


@pytest.mark.parametrize("command", ["run", "install", "kernel"])
def test_a_python_that_is_too_old_is_refused(command, tmp_path):
    pythons = old_pythons()
    if not pythons:
        pytest.skip("there is no Python 3.8 or 3.9 on this machine")
    arguments = {"run": ["-c", "1"], "install": ["--prefix", tmp_path], "kernel": ["-f", connection_file(tmp_path)]}[command]
    for python in pythons:
        done = cob(command, "--python", python, *arguments)
        assert done.returncode != 0 and done.stdout == ""
        assert "3.10" in done.stderr and ("3.8" in done.stderr or "3.9" in done.stderr)
        assert "undefined symbol" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("no-such-command",), ("run",), ("run", "a.ipynb", "-c", "1"), ("kernel",), ("install", "--no-such-flag"),
                                       ("install", "--user", "--prefix", "x"), ("run", "--python", "a", "--kernel", "b", "-c", "1")])
def test_wrong_arguments_are_exit_code_2(arguments):
    done = cob(*arguments)
    assert done.returncode == 2 and done.stderr.strip() and "panicked" not in done.stderr


# cob kernel ------------------------------------------------------------------

def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def connection_file(folder, **changes):
    ports = dict(zip(("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port"), free_ports(5)))
    content = {"transport": "tcp", "ip": "127.0.0.1", "key": "secret", "signature_scheme": "hmac-sha256", **ports, **changes}
    path = Path(folder) / "connection.json"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return path


def test_a_missing_connection_file_is_named():
    check_refused(cob("kernel", "-f", "missing.json"), "missing.json")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "5", '{"transport": "tcp"}', "\x00"])
def test_a_malformed_connection_file_is_refused(tmp_path, content):
    path = tmp_path / "connection.json"
    path.write_text(content)
    check_refused(cob("kernel", "--python", target.BARE, "-f", path), "connection.json")


@pytest.mark.parametrize("changes", [{"transport": "pigeon"}, {"signature_scheme": "hmac-rot13"}, {"shell_port": "x"}, {"shell_port": 99999},
                                     {"ip": "not an address at all"}, {"hb_port": None}, {"key": 5}])
def test_a_connection_file_with_wrong_values_is_refused(tmp_path, changes):
    done = cob("kernel", "--python", target.BARE, "-f", connection_file(tmp_path, **changes))
    assert done.returncode in (1, 2) and done.stderr.strip() and "panicked" not in done.stderr


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cob("kernel", "--python", target.BARE, "-f", connection_file(tmp_path, control_port=port))
    assert done.returncode == 1 and str(port) in done.stderr and "panicked" not in done.stderr


def test_an_interpreter_that_is_gone_is_named(tmp_path):
    done = cob("kernel", "--python", "/no/such/python", "-f", connection_file(tmp_path))
    assert done.returncode != 0 and "/no/such/python" in done.stderr


# cob install -----------------------------------------------------------------

def test_install_list_and_remove(tmp_path):
    done = cob("install", "--python", target.BARE, "--prefix", tmp_path, "--name", "mine", "--display-name", "My Python")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "share" / "jupyter" / "kernels" / "mine"
    spec = json.loads((folder / "kernel.json").read_text())
    assert spec["display_name"] == "My Python" and spec["language"] == "python"
    assert "{connection_file}" in spec["argv"] and os.path.isabs(spec["argv"][0]) and target.BARE in spec["argv"]
    assert spec["interrupt_mode"] in ("signal", "message")
    listed = cob("install", "--list", "--prefix", tmp_path)
    assert listed.returncode == 0 and "mine" in listed.stdout and "My Python" in listed.stdout
    assert cob("install", "--remove", "mine", "--prefix", tmp_path).returncode == 0
    assert not folder.exists()
    check_refused(cob("install", "--remove", "mine", "--prefix", tmp_path), "mine")


def test_install_again_replaces(tmp_path):
    for name in ("One", "Two"):
        assert cob("install", "--python", target.BARE, "--prefix", tmp_path, "--display-name", name).returncode == 0
    spec = json.loads((tmp_path / "share/jupyter/kernels/cob/kernel.json").read_text())
    assert spec["display_name"] == "Two"


def test_install_for_the_user_is_found_by_jupyter(tmp_path):
    env = {"HOME": str(tmp_path), "JUPYTER_DATA_DIR": str(tmp_path / "data"), "XDG_DATA_HOME": str(tmp_path / "xdg")}
    assert cob("install", "--python", target.BARE, "--name", "for-user", "--user", env=env).returncode == 0
    found = subprocess.run([sys.executable, "-m", "jupyter_client.kernelspecapp", "list", "--json"], capture_output=True, text=True,
                           env={**os.environ, **env}, timeout=120)
    assert "for-user" in json.loads(found.stdout)["kernelspecs"]


def test_install_into_the_environment_of_the_interpreter(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    assert cob("install", "--python", tmp_path / "env/bin/python", "--sys-prefix", "--name", "inside").returncode == 0
    assert (tmp_path / "env/share/jupyter/kernels/inside/kernel.json").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "with space", ".", "ä"])
def test_names_that_jupyter_would_not_find_are_refused(name, tmp_path):
    check_refused(cob("install", "--python", target.BARE, "--prefix", tmp_path, "--name", name))


def test_kernels_of_others_are_not_removed(tmp_path):
    folder = tmp_path / "share/jupyter/kernels/other"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"argv": ["other"], "display_name": "Other", "language": "other"}')
    check_refused(cob("install", "--remove", "other", "--prefix", tmp_path), "other")
    assert folder.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = cob("install", "--python", target.BARE, "--prefix", tmp_path / "file")
    assert done.returncode in (1, 2) and "file" in done.stderr


# cob doctor ------------------------------------------------------------------

def test_doctor_mentions_every_check_and_is_content():
    done = cob("doctor", "--python", target.RICH)
    assert done.returncode == 0, done.stdout
    for check in ("system", "interpreter", "worker", "ipython", "ipywidgets", "matplotlib", "kernelspecs", "front end"):
        assert check in done.stdout


def test_doctor_says_what_is_missing_and_how_to_get_it():
    done = cob("doctor", "--python", target.BARE)
    assert done.returncode == 0
    assert "pip install ipython" in done.stdout


def test_doctor_is_not_content_without_a_python():
    done = cob("doctor", "--python", "/no/such/python")
    assert done.returncode == 1 and "/no/such/python" in done.stdout


def test_doctor_speaks_json():
    report = json.loads(cob("doctor", "--json", "--python", target.BARE).stdout)
    assert {"check", "verdict", "found", "fix"} <= set(report["checks"][0])
