"The collector in conftest.py: what it counts, what it fails, what it skips"
import json, shutil
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
root = Path(__file__).parents[1]


@pytest.fixture
def project(pytester, monkeypatch):
    "An empty project with this one's collector; a run of it is a process of its own, as IPython keeps one shell a process"
    for name in ("conftest.py", "pytest.ini"): shutil.copy(root/name, pytester.path)
    (pytester.path/"settings.ini").write_text("[DEFAULT]\nlib_path = none\nnbs_path = nbs\ntst_flags = notest slow cuda\n")
    (pytester.path/"nbs").mkdir()
    monkeypatch.delenv("CI", raising=False)
    return pytester


def notebook(project, name, *cells):
    "Write a notebook of these code cells; one that starts with # and a space is markdown"
    kind = lambda text: "markdown" if text.startswith("# ") else "code"
    cells = [{"cell_type": kind(c), "id": str(i), "metadata": {}, "source": c} | ({"outputs": [], "execution_count": None} if kind(c) == "code" else {})
             for i, c in enumerate(cells)]
    (project.path/"nbs"/f"{name}.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def test_counts_cells_that_hold_code(project):
    notebook(project, "a", "# Title", "#| default_exp a", "#| export\nclass Window:\n    size = 3", "assert Window.size == 3",
             "import os\nassert os.path.basename(os.getcwd()) == 'nbs'", "#| hide\nimport nbdev; nbdev.nbdev_export()", "", "# only a remark")
    run = project.runpytest_subprocess("-v")
    run.assert_outcomes(passed=3)
    run.stdout.fnmatch_lines(["nbs/a.ipynb::3 Window PASSED*", "nbs/a.ipynb::4 assert Window.size == 3 PASSED*"])


def test_a_failed_cell_fails_those_below_it_and_no_other_notebook(project):
    notebook(project, "a", "size = 3", "#| export\nsize / 0", "size", "size + 1")
    notebook(project, "b", "1 + 1")
    run = project.runpytest_subprocess()
    run.assert_outcomes(passed=2, failed=3)
    run.stdout.fnmatch_lines(["*ZeroDivisionError: division by zero*", "not run, because cell 2 size 0 above it failed: ZeroDivisionError*"])


def test_a_swallowed_traceback_fails(project):
    for name, code in dict(
        output="from ipywidgets import Output\nwith Output(): 1/0",
        click="from ipywidgets import Button\nb = Button()\nb.on_click(lambda _: 1/0)\nb.click()",
        interactive="from ipywidgets import interactive\nshow = interactive(lambda n: 1/n, n=(1, 3))\nshow.children[0].min = 0\nshow.children[0].value = 0",
        stderr="import traceback\ntry: 1/0\nexcept ZeroDivisionError: traceback.print_exc()",
        semicolon="import traceback\ntry: 1/0\nexcept ZeroDivisionError: print(traceback.format_exc());",
        view="class Broken:\n    def __repr__(self): return 1/0\nBroken()",
    ).items(): notebook(project, name, code, "1 + 1")
    run = project.runpytest_subprocess()
    run.assert_outcomes(failed=12)
    assert run.stdout.str().count("\nprinted a traceback") == 6


def test_an_error_that_is_caught_is_no_failure(project):
    notebook(project, "a", "from fastcore.test import test_fail\ntest_fail(lambda: 1/0, contains='division')")
    project.runpytest_subprocess().assert_outcomes(passed=1)


def test_flags_skip_unless_asked_for(project):
    notebook(project, "a", "#| slow\nsize = 3", "#| eval: false\n1/0", "#| notest\n1/0", "#| cuda\n1/0", "1 + 1")
    run = project.runpytest_subprocess("-rs")
    run.assert_outcomes(passed=1, skipped=4)
    run.stdout.fnmatch_lines(["*#| eval: false*"])
    project.runpytest_subprocess("--flags", "slow").assert_outcomes(passed=2, skipped=3)


def test_skip_exec_skips_the_notebook(project):
    notebook(project, "a", "# Title\n\n- skip_exec: true", "1/0")
    project.runpytest_subprocess().assert_outcomes(skipped=1)


def test_a_cell_chosen_alone_has_those_above_it_run(project):
    notebook(project, "a", "size = 3", "other = size", "assert other == 3", "1/0")
    project.runpytest_subprocess("nbs/a.ipynb::3 assert other == 3").assert_outcomes(passed=1)


def test_timeout(project):
    notebook(project, "a", "import time; time.sleep(60)", "1 + 1")
    run = project.runpytest_subprocess("--timeout=1", timeout=40)
    run.assert_outcomes(failed=2)
    run.stdout.fnmatch_lines(["*Timeout*"])


def test_a_notebook_stays_on_one_worker(project):
    for name in "ab": notebook(project, name, *[f"with open('{name}.txt', 'a') as f: print({i}, file=f)" for i in range(4)])
    project.runpytest_subprocess("-n", "2").assert_outcomes(passed=8)
    for name in "ab": assert (project.path/"nbs"/f"{name}.txt").read_text().split() == list("0123")


@pytest.mark.parametrize("ci, outcome", [("", {"skipped": 1}), ("true", {"errors": 1})])
def test_real_data_is_a_must_in_continuous_integration(project, monkeypatch, ci, outcome):
    monkeypatch.setenv("CI", ci)
    project.makepyfile("def test_data(shared): assert shared.is_dir()")
    project.runpytest_subprocess("test_real_data_is_a_must_in_continuous_integration.py").assert_outcomes(**outcome)
