"""Jupyter's own kernel tests (jupyter_kernel_test), with nothing skipped that a kernel of the language can do.

Each of them is run as the unittest that it is, because pytest reports a test as
passed although one of its subtests failed.
"""
import os
import unittest

import pytest

from support import conformance, target

SUITES = [conformance.PythonKernel, conformance.BareKernel, conformance.Welcome]
SUITES += [conformance.JavaScriptKernel, conformance.JavaScriptWelcome] if target.IS_COB else []
CASES = [(suite, name) for suite in SUITES for name in unittest.defaultTestLoader.getTestCaseNames(suite)]
# What has no sample in an environment without IPython, or in a language without a pager, or on purpose above.
UNSUPPORTED = {("BareKernel", "test_clear_output"): "there is no clear_output without IPython",
               ("JavaScriptKernel", "test_pager"): "nothing opens the pager"}


@pytest.fixture(scope="module")
def started(kernelspecs):
    """The kernel of each suite, started when its first test comes."""
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(kernelspecs.parent)
    suites = {}

    def start(suite):
        if suite not in suites:
            suite.setUpClass()
            suites[suite] = True
        return suite

    yield start
    for suite in suites:
        suite.tearDownClass()
    os.environ.pop("JUPYTER_PATH") if before is None else os.environ.update(JUPYTER_PATH=before)


@pytest.mark.parametrize("suite, name", CASES, ids=[f"{suite.__name__}-{name}" for suite, name in CASES])
def test_conformance(started, suite, name):
    result = unittest.TestResult()
    started(suite)(name).run(result)
    problems = [text for _, text in result.failures + result.errors]
    assert not problems, "\n".join(problems)
    if (suite.__name__, name) in UNSUPPORTED:
        pytest.skip(f"{name}: {UNSUPPORTED[suite.__name__, name]}")
    skipped = [reason for _, reason in result.skipped]
    assert not skipped or (not target.IS_COB and skipped == ["History range not supported"])
