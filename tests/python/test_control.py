"""Control is never blocked by what runs; the heart beats; shutdown leaves nothing behind."""
import os
import signal

import psutil
import pytest
import zmq


def test_kernel_info_names_versions_and_language(kernel):
    info = kernel.info
    assert info["status"] == "ok"
    major, minor = map(int, info["protocol_version"].split(".")[:2])
    assert (major, minor) >= (5, 3)
    language = info["language_info"]
    assert language["name"] == "python" and language["file_extension"] == ".py" and language["mimetype"] == "text/x-python"
    assert language["version"].startswith("3.") and language["pygments_lexer"] and language["codemirror_mode"]
    assert language["nbconvert_exporter"] == "python"
    version = kernel.value("'.'.join(map(str, __import__('sys').version_info[:3]))")
    assert language["version"] == version


def test_only_what_works_is_announced(kernel):
    """A front end offers what supported_features says."""
    if "kernel subshells" in kernel.info.get("supported_features", []):
        assert kernel.ask("create_subshell_request", channel="control")["status"] == "ok"
    if "debugger" in kernel.info.get("supported_features", []):
        answer = kernel.ask("debug_request", {"type": "request", "seq": 1, "command": "debugInfo"}, channel="control")
        assert answer["success"]


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(600)"])
def test_control_answers_while_a_cell_runs(kernel, code):
    run = kernel.execute(f"print('ready', flush=True)\n{code}").printed("ready\n")
    assert kernel.ask("kernel_info_request", channel="control")["status"] == "ok"
    assert not run.reply_message
    kernel.interrupt()
    assert run.wait().status == "error"


@pytest.mark.cob_only("answers only when the cell is done")
def test_kernel_info_on_shell_is_answered_while_a_cell_runs(kernel):
    run = kernel.execute("print('ready', flush=True)\nimport time; time.sleep(600)").printed("ready\n")
    assert kernel.ask("kernel_info_request")["status"] == "ok"
    assert not run.reply_message
    kernel.interrupt()
    run.wait()


def test_control_is_not_behind_a_flood_of_output(kernel):
    run = kernel.execute("print('ready', flush=True)\nwhile True: print('flood' * 100)").printed("ready\n")
    for _ in range(5):
        assert kernel.ask("kernel_info_request", channel="control")["status"] == "ok"
    kernel.interrupt()
    assert run.wait().reply["ename"] == "KeyboardInterrupt"


def test_status_of_control_does_not_claim_the_cell_is_done(kernel):
    run = kernel.execute("print('ready', flush=True)\nimport time; time.sleep(600)").printed("ready\n")
    kernel.ask("kernel_info_request", channel="control")
    assert kernel.client.state[run.id] == "busy"
    kernel.interrupt()
    run.wait()


@pytest.mark.parametrize("beat", [b"ping", b"", b"\x00\xff" * 10, b"x" * 200])
def test_the_heart_echoes_what_it_got(kernel, beat):
    heart = kernel.client.socket(zmq.REQ, "hb")
    heart.send(beat)
    assert heart.poll(30_000) and heart.recv() == beat
    heart.close()


def test_the_heart_beats_while_a_cell_runs(kernel):
    run = kernel.execute("print('ready', flush=True)\nwhile True: pass").printed("ready\n")
    heart = kernel.client.socket(zmq.REQ, "hb")
    for n in range(10):
        heart.send(b"%d" % n)
        assert heart.poll(30_000) and heart.recv() == b"%d" % n
    heart.close()
    kernel.interrupt()
    run.wait()


def test_many_hearts_beat_at_once(kernel):
    hearts = [kernel.client.socket(zmq.REQ, "hb") for _ in range(20)]
    for n, heart in enumerate(hearts):
        heart.send(b"%d" % n)
    for n, heart in enumerate(hearts):
        assert heart.poll(30_000) and heart.recv() == b"%d" % n
        heart.close()


def test_usage_is_reported(kernel):
    usage = kernel.ask("usage_request", channel="control")
    assert usage["kernel_memory"] > 1_000_000 and usage["pid"]


def test_connect_names_the_ports(kernel):
    answer = kernel.ask("connect_request")
    for name in ("shell_port", "iopub_port", "stdin_port", "hb_port"):
        assert answer[name] == kernel.connection[name]


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_an_unknown_request_changes_nothing(kernel, channel):
    kernel.client.send(channel, "no_such_request", {"x": 1})
    assert kernel.ask("kernel_info_request", channel=channel)["status"] == "ok"
    assert kernel.run("1 + 1").ok().result == "2"


# The end ---------------------------------------------------------------------

def check_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("name", ["rich", "bare"])
def test_shutdown_is_answered_and_leaves_nothing(own, name, restart):
    kernel = own(name)
    kernel.run("import subprocess\nx = 1").ok()
    processes = kernel.processes()
    request = kernel.client.send("control", "shutdown_request", {"restart": restart})
    kernel.client.until(lambda: kernel.client.reply_to(request))
    reply = kernel.client.reply_to(request).content
    assert reply["status"] == "ok" and reply["restart"] is restart
    assert kernel.wait_exit() == 0
    check_gone(processes)


def test_shutdown_on_shell_works_too(own):
    kernel = own("bare")
    request = kernel.client.send("shell", "shutdown_request", {"restart": False})
    kernel.client.until(lambda: kernel.client.reply_to(request))
    assert kernel.wait_exit() == 0


def test_shutdown_ends_a_running_cell(own):
    kernel = own("bare")
    kernel.execute("print('ready', flush=True)\nimport time; time.sleep(600)").printed("ready\n")
    processes = kernel.processes()
    kernel.client.send("control", "shutdown_request", {"restart": False})
    kernel.manager.shutdown_kernel()
    check_gone(processes)


@pytest.mark.cob_only("leaves children of the code behind")
def test_shutdown_takes_the_children_of_the_code_along(own):
    kernel = own("bare")
    kernel.run("import subprocess\nchild = subprocess.Popen(['sleep', '600'])").ok()
    processes = kernel.processes()
    assert any(p.name() == "sleep" for p in processes)
    kernel.client.send("control", "shutdown_request", {"restart": False})
    kernel.wait_exit()
    check_gone(processes)


def test_exit_handlers_run_at_shutdown(own):
    kernel = own("bare")
    kernel.run("import atexit\natexit.register(lambda: open('goodbye', 'w').write('said'))").ok()
    kernel.client.send("control", "shutdown_request", {"restart": False})
    kernel.wait_exit()
    assert (kernel.cwd / "goodbye").read_text() == "said"


def test_sigterm_ends_the_kernel_and_its_worker(own):
    kernel = own("bare")
    processes = kernel.processes()
    os.kill(kernel.pid, signal.SIGTERM)
    kernel.wait_exit()
    check_gone(processes)


def test_a_killed_kernel_leaves_no_worker(own):
    kernel = own("bare")
    kernel.execute("print('ready', flush=True)\nwhile True: pass").printed("ready\n")
    processes = kernel.processes()
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.wait_exit()
    check_gone(processes)


def test_the_manager_can_restart_the_kernel(own):
    kernel = own("bare")
    kernel.run("forgotten = 1").ok()
    before = kernel.pid
    kernel.manager.restart_kernel()
    assert kernel.pid != before
    fresh = kernel.reconnect()
    assert fresh.run("forgotten").reply["ename"] == "NameError"
    assert fresh.run("1 + 1").ok().result == "2"


def test_the_manager_can_restart_a_busy_kernel(own):
    kernel = own("bare")
    kernel.execute("print('ready', flush=True)\nwhile True: pass").printed("ready\n")
    kernel.manager.restart_kernel(now=True)
    assert kernel.reconnect().run("1 + 1").ok().result == "2"


def test_kernels_can_talk_over_unix_sockets(own):
    kernel = own("bare", transport="ipc")
    assert kernel.connection["transport"] == "ipc"
    run = kernel.run("print('over ipc')\n1 + 1").ok()
    assert run.stdout == "over ipc\n" and run.result == "2"


def test_a_blocking_client_of_jupyter_works(own):
    kernel = own("bare")
    client = kernel.manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        outputs = []
        reply = client.execute_interactive("print('interactive')\n6 * 7", timeout=60, output_hook=outputs.append,
                                           stdin_hook=lambda m: None)
        assert reply["content"]["status"] == "ok"
        assert [m["content"].get("text") for m in outputs if m["msg_type"] == "stream"] == ["interactive\n"]
        assert [m["content"]["data"]["text/plain"] for m in outputs if m["msg_type"] == "execute_result"] == ["42"]
        assert client.is_alive() and client.hb_channel.is_beating()
    finally:
        client.stop_channels()
