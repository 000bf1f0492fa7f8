"""The command line for JavaScript and TypeScript: what cob does for Python, with the same words."""
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jupyter_client
import nbformat
import pytest
from support import target



def _is_built_in():
    if not target.IS_COB:
        return False
    done = subprocess.run([target.COB, "run", "--language", "javascript", "-c", "1"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=120)
    return "built without JavaScript" not in done.stderr


pytestmark = pytest.mark.skipif(not _is_built_in(), reason="a cob with JavaScript is needed")


# Without what cargo tells the dynamic linker in processes that it starts: a worker that is to have that has another
# environment than the sessions of a server.
INHERITED = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}


def cob(*arguments, cwd=None, env=None, binary=None, **options):
    options = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run([binary or target.COB, *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          timeout=120, env={**INHERITED, **(env or {})}, **options)


def run(*arguments, **options):
    return cob("run", "--language", "javascript", *arguments, **options)


def check_refused(done, *words):
    """Exit code 2 and a sentence on stderr that names what is wrong; nothing on stdout."""
    assert done.returncode == 2 and done.stdout == "", done
    assert "panicked" not in done.stderr
    for word in words:
        assert str(word) in done.stderr


# cob run ---------------------------------------------------------------------

def test_code_prints_output_and_result():
    done = run("-c", "console.log('printed'); console.error('to stderr'); 6 * 7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "printed\n42\n", "to stderr\n")


@pytest.mark.parametrize("code, words", [
    ("console.log('before'); null.x", "TypeError"),
    ("console.log('before'); throw new RangeError('too far')", "RangeError: too far"),
])
def test_code_that_fails_is_exit_code_1(code, words):
    done = run("-c", code)
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert words in done.stderr and "Traceback" not in done.stderr


def test_a_syntax_error_is_exit_code_1():
    done = run("-c", "let x = = 1")
    assert done.returncode == 1 and "SyntaxError" in done.stderr


@pytest.mark.parametrize("ending", ["js", "mjs", "ts", "mts"])
def test_the_ending_of_a_script_says_its_language(tmp_path, ending):
    script = tmp_path / f"script.{ending}"
    script.write_text("console.log(typeof globalThis.print, [1, 2].map((x) => x * 2))\n")
    done = cob("run", script)
    assert (done.returncode, done.stdout) == (0, "undefined [ 2, 4 ]\n"), done.stderr


def test_a_script_has_arguments_and_what_lies_beside_it(tmp_path):
    (tmp_path / "beside.ts").write_text("export const value: string = 'from beside';\n")
    script = tmp_path / "script.ts"
    script.write_text("import { value } from './beside.ts';\nconsole.log(cob.args, value)\n")
    done = cob("run", script, "a", "--flag", cwd="/")
    assert (done.returncode, done.stdout) == (0, "[ 'a', '--flag' ] from beside\n".replace("'", '"')), done.stderr


def test_questions_are_answered_by_lines_of_stdin():
    done = subprocess.run([target.COB, "run", "--language", "js", "-c", "prompt('name? ') + '!'"], input="Ann\n",
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and '"Ann!"' in done.stdout, done.stderr


def test_a_notebook_runs_in_its_language_whoever_made_it(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("let x = 20;"), nbformat.v4.new_code_cell("x + 22")])
    notebook.metadata["kernelspec"] = {"name": "deno", "display_name": "Deno", "language": "typescript"}
    path = tmp_path / "n.ipynb"
    nbformat.write(notebook, path)
    done = cob("run", path)
    assert done.returncode == 0, done.stderr
    written = nbformat.read(path, as_version=4)
    nbformat.validate(written)
    assert written.cells[1].outputs[0].data["text/plain"] == "42"
    assert written.metadata.language_info.name == "typescript" and written.metadata.kernelspec.name == "deno"


def test_what_does_not_go_together_is_said(tmp_path):
    check_refused(cob("run", "--language", "cobol", "-c", "1"), "cobol", "python, javascript")
    check_refused(run("--python", target.BARE, "-c", "1"), target.BARE, "javascript")
    check_refused(cob("run", "--language", "python", "--allow-read", "-c", "1"), "--allow-read", "javascript")
    check_refused(run(tmp_path / "none.ts"), "none.ts")


# cob install, cob kernel -----------------------------------------------------

def install(prefix, *arguments):
    done = cob("install", "--language", "javascript", "--prefix", prefix, *arguments)
    assert done.returncode == 0, done.stderr
    kernels = Path(prefix) / "share" / "jupyter" / "kernels"
    return kernels, done


def test_a_kernelspec_says_what_front_ends_need(tmp_path):
    kernels, done = install(tmp_path)
    assert "installed JavaScript (cob) in" in done.stdout
    spec = json.loads((kernels / "cob-javascript" / "kernel.json").read_text())
    assert spec["argv"][1:4] == ["kernel", "--language", "javascript"] and "--python" not in spec["argv"]
    assert (spec["language"], spec["display_name"]) == ("typescript", "JavaScript (cob)")
    assert spec["metadata"]["cob"]["language"] == "javascript"
    listed = cob("install", "--list", "--prefix", tmp_path).stdout
    assert "cob-javascript  JavaScript (cob)" in listed
    assert cob("install", "--remove", "cob-javascript", "--prefix", tmp_path).returncode == 0
    assert not (kernels / "cob-javascript").exists()


def test_a_kernelspec_holds_what_was_asked_for(tmp_path):
    kernels, _ = install(tmp_path, "--name", "js", "--checkpoints", "auto", "--allow-read=/srv", "--session", "new",
                         "--display-name", "Mine")
    spec = json.loads((kernels / "js" / "kernel.json").read_text())
    assert spec["display_name"] == "Mine"
    words = " ".join(spec["argv"])
    for part in ("--session new", "--checkpoints auto", "--allow-read=/srv", "--language javascript"):
        assert part in words
    check_refused(cob("install", "--language", "js", "--python", target.BARE, "--prefix", tmp_path), target.BARE)


def test_without_a_python_a_kernelspec_is_installed_all_the_same(tmp_path):
    done = cob("install", "--language", "js", "--prefix", tmp_path, env={"PATH": "", "VIRTUAL_ENV": ""})
    assert done.returncode == 0, done.stderr


def test_sys_prefix_is_the_environment_that_is_active(tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([target.BARE, "-m", "venv", "--without-pip", environment], check=True)
    done = cob("install", "--language", "js", "--sys-prefix", env={"VIRTUAL_ENV": str(environment)})
    assert done.returncode == 0 and str(environment) in done.stdout, done


def test_a_front_end_gets_the_language_and_its_links(tmp_path):
    kernels, _ = install(tmp_path)
    manager = jupyter_client.KernelManager(kernel_name="cob-javascript")
    manager.kernel_spec_manager.kernel_dirs = [str(kernels)]
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        info = client.kernel_info(reply=True, timeout=60)["content"]
        assert info["language_info"]["name"] == "typescript"
        links = [link["text"] for link in info["help_links"]]
        assert "TypeScript Handbook" in links and "Python Reference" not in links
        reply = client.execute_interactive("const x = 1; x + 1", timeout=60, output_hook=lambda _: None)
        assert reply["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# A server --------------------------------------------------------------------

class Server:
    def __init__(self, *arguments, binary=None):
        self.home = Path(tempfile.mkdtemp(prefix="cob-js-", dir="/tmp"))
        self.env = {"COB_RUNTIME_DIR": str(self.home / "run"), "COB_STATE_DIR": str(self.home / "state"),
                    "HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home)}
        self.binary = binary
        command = [binary or target.COB, "serve", "--python", target.BARE, "--import", "", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env={**INHERITED, **self.env})
        assert self.process.stdout.readline().startswith("serving"), self.process.stderr.read()

    def cob(self, *arguments, **options):
        return cob(*arguments, env=self.env, **options)

    def info(self):
        return json.loads(self.cob("info", "--json").stdout)

    def close(self):
        self.process.terminate()
        self.process.communicate(timeout=60)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def server():
    servers = []

    def start(*arguments, **options):
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


def environment(info):
    return next(each for each in info["environments"] if each["name"] == "javascript")


def test_sessions_have_the_language_of_the_file_or_the_one_that_is_named(server, tmp_path):
    one = server()
    script = tmp_path / "s.ts"
    script.write_text("console.log('in ' + typeof cob)\n")
    assert one.cob("exec", script).stdout == "in object\n"
    assert one.cob("exec", "--language", "ts", "-c", "6 * 7").stdout == "42\n"
    kept = one.cob("exec", "--language", "js", "--keep", "--name", "data", "-c", "let x = 5")
    session = kept.stderr.split()[1]
    assert one.cob("exec", session, "-c", "x").stdout == "5\n"
    assert "javascript" in one.cob("sessions").stdout
    check_refused(one.cob("exec", "--language", "js", "--python", target.BARE, "-c", "1"), "no Python interpreter")
    check_refused(one.cob("exec", session, "--language", "js", "-c", "1"), "new sessions")


def test_notebooks_and_agents_share_warm_workers_without_imports(server):
    one = server("--javascript", "1")
    known = environment(one.info())
    assert known["imports"] == {"imported": [], "missing": [], "left_out": []} or not any(known["imports"].values())
    assert one.cob("exec", "--language", "js", "-c", "1").stdout == "1\n"
    assert one.cob("run", "--language", "js", "-c", "2").stdout == "2\n"
    info = one.info()
    assert sum(each["name"] == "javascript" for each in info["environments"]) == 1
    assert info["counters"]["leased_warm"] + info["counters"]["leased_forked"] == 2, info["counters"]


def test_a_server_whose_file_was_replaced_goes_on_with_its_own(server, tmp_path):
    binary = tmp_path / "cob"
    shutil.copy(target.COB, binary)
    one = server(binary=binary)
    kept = one.cob("exec", "--language", "js", "--keep", "-c", "let x = 'before'")
    session = kept.stderr.split()[1]
    new = tmp_path / "new"
    shutil.copy(target.COB, new)
    os.replace(new, binary)
    assert one.cob("exec", "--language", "js", "-c", "'another'").stdout == '"another"\n'
    assert one.cob("restart", session).returncode == 0
    assert one.cob("exec", session, "-c", "typeof x").stdout == '"undefined"\n'
    # Whoever comes from the new file gets no worker of the old one.
    before = one.info()["counters"]
    assert one.cob("run", "--language", "js", "-c", "1", binary=binary).stdout == "1\n"
    after = one.info()["counters"]
    assert (after["leased_warm"], after["leased_forked"]) == (before["leased_warm"], before["leased_forked"])


def test_a_front_end_shares_a_session_of_the_server(server, tmp_path):
    one = server()
    kernels, _ = install(tmp_path, "--session", "new")
    manager = jupyter_client.KernelManager(kernel_name="cob-javascript")
    manager.kernel_spec_manager.kernel_dirs = [str(kernels)]
    manager.start_kernel(env={**INHERITED, **one.env})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        assert client.kernel_info(reply=True, timeout=60)["content"]["language_info"]["name"] == "typescript"
        client.execute_interactive("let shared = 41", timeout=60, output_hook=lambda _: None)
        (session,) = [line.split()[0] for line in one.cob("sessions").stdout.splitlines() if "javascript" in line]
        assert one.cob("exec", session, "-c", "shared + 1").stdout == "42\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


# cob doctor ------------------------------------------------------------------

def test_doctor_tries_the_engine():
    done = cob("doctor", "--json")
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["check"] == "javascript"]
    assert "1+1 was computed" in check["found"] or "without" in check["found"]
    assert check["fix"] is None or "docs/javascript.md" in check["fix"] or "feature" in check["fix"]
