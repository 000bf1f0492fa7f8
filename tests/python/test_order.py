"""Outputs arrive in the order in which the code produced them, whoever wrote them."""
import pytest


@pytest.mark.cob_only("buffers each stream on its own")
def test_stdout_and_stderr_keep_their_order(kernel):
    run = kernel.run("import sys\n"
                     "for n in range(20):\n"
                     "    print('out', n)\n"
                     "    print('err', n, file=sys.stderr)\n").ok()
    expected = [pair for n in range(20) for pair in (("stdout", f"out {n}\n"), ("stderr", f"err {n}\n"))]
    assert run.outputs.plain() == expected
