"""Much output, long queues and big cells: complete, in order, and before idle."""
import hashlib

import pytest

MIB = 1024 * 1024


def test_two_hundred_thousand_lines_in_order(kernel):
    run = kernel.run("for n in range(200_000): print('line', n)").ok()
    assert run.stdout == "".join(f"line {n}\n" for n in range(200_000))


def test_sixty_four_mebibytes_to_the_last_byte(bare):
    run = bare.run("import hashlib, sys\ndigest = hashlib.sha256()\n"
                   "for n in range(64):\n    text = f'{n:07d}' * (1024 * 1024 // 7)\n    text += 'x' * (1024 * 1024 - len(text))\n"
                   "    digest.update(text.encode())\n    sys.stdout.write(text)\ndigest.hexdigest()").ok()
    text = run.stdout.encode()
    assert len(text) == 64 * MIB
    assert hashlib.sha256(text).hexdigest() == run.result.strip("'")


@pytest.mark.cob_only("reads the pipe of C output in another thread")
def test_a_flood_written_by_c_and_children(bare):
    run = bare.run("import os, subprocess\n"
                   "for _ in range(64): os.write(1, b'c' * 65536)\n"
                   "subprocess.run('head -c 4194304 /dev/zero | tr \"\\\\0\" k', shell=True)\nprint('end')").ok()
    assert run.stdout == "c" * 4 * MIB + "k" * 4 * MIB + "end\n"


def test_one_very_long_line(kernel):
    run = kernel.run("print('ü' * (8 * 1024 * 1024))").ok()
    assert run.stdout == "ü" * 8 * MIB + "\n"


def test_a_million_small_writes(bare):
    run = bare.run("import sys\nfor n in range(1_000_000): sys.stdout.write('.')").ok()
    assert run.stdout == "." * 1_000_000


def test_five_hundred_big_displays(kernel):
    run = kernel.run("for n in range(500): display({'text/plain': str(n), 'text/html': 'x' * 100_000}, raw=True)").ok()
    assert [(d["text/plain"], len(d["text/html"])) for d in run.outputs.displays] == [(str(n), 100_000) for n in range(500)]


def test_a_five_megabyte_cell(kernel):
    run = kernel.run("text = '" + "x" * 5_000_000 + "'\nlen(text)").ok()
    assert run.result == "5000000"


def test_a_cell_of_very_many_lines(kernel):
    assert kernel.run("\n".join(f"v{n % 10} = {n}" for n in range(20_000)) + "\nv9").ok().result == "19999"


def test_a_big_result(kernel):
    assert kernel.run("'y' * 2_000_000").ok().result.strip("'") == "y" * 2_000_000


@pytest.mark.cob_only("stops replying when 2000 cells are queued")
def test_two_thousand_pipelined_cells_are_all_answered_in_order(kernel):
    runs = [kernel.execute(f"print({n})\n{n}") for n in range(2000)]
    for run in runs:
        run.wait().ok()
    mine = {run.id for run in runs}
    order = [m.parent_id for m in kernel.client.messages(channel="shell") if m.parent_id in mine]
    assert order == [run.id for run in runs]
    outputs = [m for m in kernel.client.messages(channel="iopub") if m.parent_id in mine]
    assert list(dict.fromkeys(m.parent_id for m in outputs)) == order
    assert [run.outputs.plain() for run in runs] == [[("stdout", f"{n}\n"), ("execute_result", str(n))] for n in range(2000)]


def test_large_buffers_to_the_kernel(rich):
    from test_comms import ECHO, open_from_front_end, send_to_comm
    rich.run(ECHO).ok()
    comm_id, _ = open_from_front_end(rich, "echo")
    buffers = [bytes([n]) * 4 * MIB for n in range(4)]
    request = send_to_comm(rich, comm_id, {}, buffers=buffers)
    assert rich.client.messages(request, "iopub", ("comm_msg",))[0].buffers == buffers


@pytest.mark.cob_only("drops what a slow reader does not take")
def test_a_front_end_that_does_not_read_loses_nothing_for_the_others(bare):
    """The silent one is a subscriber that never reads; its pipe is full after a few megabytes."""
    silent = bare.connect()
    run = bare.run("for n in range(100_000): print('line', n)").ok()
    assert run.stdout == "".join(f"line {n}\n" for n in range(100_000))
    silent.close()
    bare.clients.remove(silent)
