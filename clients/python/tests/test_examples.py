"""The examples do what they say."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import COB

ROOT = Path(__file__).parents[1]


def run(name, *arguments, server=None):
    return play(ROOT / "examples" / f"{name}.py", *arguments, server=server)


def play(path, *arguments, server=None):
    variables = {"PYTHONPATH": str(ROOT / "src"), **({"COB_SERVER": str(server.file)} if server else {})}
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_each_is_short_and_says_how_to_run_it(path):
    text = path.read_text()
    assert text.startswith('"""') and f"python {path.name}" in text and text.count("\n") < 80


def test_the_ten_lines_of_the_tour_work(shared_server, tmp_path):
    first, second = (ROOT / "README.md").read_text().split("```python\n")[1:3]
    script = tmp_path / "tour.py"
    script.write_text(first.partition("```")[0] + second.partition("```")[0])
    shown = play(script, server=shared_server)
    assert "0\\n1\\n2\\n" in shown and shown.endswith("\n28\n42\n")


def test_an_agent_repairs_its_code(shared_server):
    shown = run("data_analysis_agent", server=shared_server)
    assert "KeyError" in shown and "answer: best is Thu with 117.05" in shown


def test_the_best_branch_wins(shared_server):
    shown = run("parallel_branches", server=shared_server)
    assert "deadline_passed" in shown and "best: try a grid with -0.9732" in shown


def test_a_person_is_asked(shared_server):
    assert run("human_approval", "yes", server=shared_server).endswith("sent: Dear all, the kitchen is closed on Friday.\n")


def test_a_killed_server_costs_nothing():
    if COB is None:
        pytest.skip("COB_BIN names no server")
    shown = run("retry_after_kill", COB)
    assert "-- killed" in shown and "joined" in shown and "effect: charged 10 EUR\n" in shown
    assert shown.count("step 4") == 2


def test_the_best_state_goes_on(shared_server):
    shown = run("tree_search", server=shared_server)
    assert "cut the tails: 2.468" in shown and "logarithms: 0.065" in shown and shown.endswith("with 1978 rows\n")


def test_what_failed_is_undone(shared_server):
    shown = run("undo_loop", server=shared_server)
    assert "without an undo: {'item': 'tea', 'cents': 250}" in shown
    assert shown.count("now: {'item': 'tea', 'price': '2.50'}") == 2 and "the session is as it was at" in shown
    assert shown.endswith("total: 970\n")


def test_a_session_sleeps_and_wakes(shared_server):
    shown = run("hibernate", server=shared_server)
    assert "refused:" in shown and "asleep: dormant missing: ['numbers']" in shown
    assert "awake: (True, 'Bob')" in shown and "durable, " in shown and "missing: numbers" in shown
