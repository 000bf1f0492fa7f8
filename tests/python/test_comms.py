"""Comms and the widgets that are built on them."""
import uuid

import pytest

from support.outputs import Outputs


def comms(kernel, **content):
    return kernel.ask("comm_info_request", content)["comms"]


def open_from_front_end(kernel, target, data=None):
    comm_id = uuid.uuid4().hex
    request = kernel.client.send("shell", "comm_open", {"comm_id": comm_id, "target_name": target, "data": data or {}})
    kernel.client.until(lambda: kernel.client.is_idle(request))
    return comm_id, request


def send_to_comm(kernel, comm_id, data, buffers=(), msg_type="comm_msg"):
    request = kernel.client.send("shell", msg_type, {"comm_id": comm_id, "data": data}, buffers=buffers)
    kernel.client.until(lambda: kernel.client.is_idle(request))
    return request


def printed(kernel, request):
    return Outputs(kernel.client.messages(request, "iopub")).text("stdout")


ECHO = """
from comm import get_comm_manager
def echo(comm, message):
    print('opened with', message['content']['data'])
    comm.send({'hello': 1})
    @comm.on_msg
    def answer(message):
        print('got', message['content']['data'])
        comm.send({'echo': message['content']['data']}, buffers=message['buffers'])
    @comm.on_close
    def closed(message):
        print('closed')
get_comm_manager().register_target('echo', echo)
"""


def test_an_unknown_target_is_closed_at_once(kernel):
    comm_id, request = open_from_front_end(kernel, "no.such.target")
    [closing] = kernel.client.messages(request, "iopub", ("comm_close",))
    assert closing.content["comm_id"] == comm_id
    assert comm_id not in comms(kernel)
    assert kernel.run("1 + 1").ok().result == "2"


def test_messages_for_a_comm_that_is_gone_are_harmless(kernel):
    send_to_comm(kernel, "gone", {})
    send_to_comm(kernel, "gone", {}, msg_type="comm_close")
    assert kernel.run("1 + 1").ok().result == "2"


def test_a_registered_target_talks_to_the_front_end(rich):
    rich.run(ECHO).ok()
    comm_id, request = open_from_front_end(rich, "echo", {"a": 1})
    [hello] = rich.client.messages(request, "iopub", ("comm_msg",))
    assert hello.content == {"comm_id": comm_id, "data": {"hello": 1}}
    assert printed(rich, request) == "opened with {'a': 1}\n"
    assert comms(rich)[comm_id]["target_name"] == "echo"
    request = send_to_comm(rich, comm_id, {"x": [1]})
    [echoed] = rich.client.messages(request, "iopub", ("comm_msg",))
    assert echoed.content["data"] == {"echo": {"x": [1]}}
    request = send_to_comm(rich, comm_id, {}, msg_type="comm_close")
    assert printed(rich, request) == "closed\n"
    assert comm_id not in comms(rich)


def test_buffers_travel_both_ways_unchanged(rich):
    rich.run(ECHO).ok()
    comm_id, _ = open_from_front_end(rich, "echo")
    buffers = [b"", bytes(range(256)), b"<IDS|MSG>", b"\x00" * 100_000]
    request = send_to_comm(rich, comm_id, {}, buffers=buffers)
    [echoed] = rich.client.messages(request, "iopub", ("comm_msg",))
    assert echoed.buffers == buffers


def test_an_error_in_a_handler_does_not_end_the_comm(rich):
    rich.run("from comm import get_comm_manager\n"
             "def fragile(comm, message):\n    comm.on_msg(lambda m: comm.send({'ok': 1}) if m['content']['data'] else 1/0)\n"
             "get_comm_manager().register_target('fragile', fragile)").ok()
    comm_id, _ = open_from_front_end(rich, "fragile")
    send_to_comm(rich, comm_id, {})
    request = send_to_comm(rich, comm_id, {"fine": 1})
    assert rich.client.messages(request, "iopub", ("comm_msg",))


def test_comm_info_lists_by_target(rich):
    rich.run(ECHO).ok()
    comm_id, _ = open_from_front_end(rich, "echo")
    assert comm_id in comms(rich, target_name="echo")
    assert comms(rich, target_name="another") == {}


def test_the_kernel_can_open_a_comm(rich):
    run = rich.run("from comm import create_comm\nc = create_comm(target_name='front', data={'d': 1}, metadata={'m': 1})\nc.send({'s': 2})\nc.close()").ok()
    opened, sent, closed = [m for m in run.messages if m.type.startswith("comm")]
    assert (opened.type, opened.content["target_name"], opened.content["data"], opened.metadata.get("m")) == ("comm_open", "front", {"d": 1}, 1)
    assert (sent.type, sent.content["data"]) == ("comm_msg", {"s": 2})
    assert closed.type == "comm_close"
    assert len({m.content["comm_id"] for m in (opened, sent, closed)}) == 1


@pytest.mark.cob_only("sends what was printed later than a comm")
def test_comm_messages_keep_their_place_among_the_prints(rich):
    run = rich.run("from comm import create_comm\nprint('before')\nc = create_comm(target_name='t')\nprint('after')").ok()
    assert [kind for kind, _ in run.outputs.merged()] == ["stdout", "comm_open", "stdout"]


# Widgets ---------------------------------------------------------------------

def open_widget(kernel, code):
    """Runs the code; returns the run and the comm ids by model name."""
    run = kernel.run(code).ok()
    opened = [m for m in run.messages if m.type == "comm_open"]
    assert all(m.content["target_name"] == "jupyter.widget" for m in opened)
    return run, {m.content["data"]["state"]["_model_name"]: m.content["comm_id"] for m in opened}


def test_a_slider_opens_its_comms_and_shows_a_widget_view(rich):
    run, ids = open_widget(rich, "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider")
    assert set(ids) == {"LayoutModel", "SliderStyleModel", "IntSliderModel"}
    shown = next(m.content["data"] for m in run.outputs.messages if m.type in ("execute_result", "display_data"))
    assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == ids["IntSliderModel"]


def test_the_front_end_moves_a_slider(rich):
    _, ids = open_widget(rich, "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\n"
                               "slider.observe(lambda change: print('moved to', change['new']), 'value')")
    update = {"method": "update", "state": {"value": 42}, "buffer_paths": []}
    request = send_to_comm(rich, ids["IntSliderModel"], update)
    assert rich.run("slider.value").ok().result == "42"
    assert printed(rich, request) == "moved to 42\n"


def test_the_kernel_moves_a_slider(rich):
    _, ids = open_widget(rich, "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)")
    run = rich.run("slider.value = 8").ok()
    [moved] = [m for m in run.messages if m.type == "comm_msg"]
    assert moved.content["comm_id"] == ids["IntSliderModel"] and moved.content["data"]["state"]["value"] == 8


def test_a_button_calls_back(rich):
    _, ids = open_widget(rich, "import ipywidgets\nbutton = ipywidgets.Button()\nbutton.on_click(lambda b: print('clicked'))")
    request = send_to_comm(rich, ids["ButtonModel"], {"method": "custom", "content": {"event": "click"}})
    assert printed(rich, request) == "clicked\n"


def test_an_error_in_a_callback_is_shown_and_harmless(rich):
    _, ids = open_widget(rich, "import ipywidgets\nbutton = ipywidgets.Button()\nbutton.on_click(lambda b: 1/0)")
    request = send_to_comm(rich, ids["ButtonModel"], {"method": "custom", "content": {"event": "click"}})
    assert "ZeroDivisionError" in str([m.content for m in rich.client.messages(request, "iopub")])
    assert rich.run("1 + 1").ok().result == "2"


def test_an_output_widget_takes_the_output_of_its_block(rich):
    """It asks the front end to route what is printed: by setting msg_id to the parent."""
    run = rich.run("import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    print('inside')\nprint('outside')").ok()
    states = [m.content["data"]["state"] for m in run.messages if m.type == "comm_msg" and "state" in m.content["data"]]
    assert [s["msg_id"] for s in states if "msg_id" in s] == [run.id, ""]
    kinds = [m.type if m.type != "stream" else m.content["text"] for m in run.messages if m.type in ("comm_msg", "stream")]
    assert kinds.index("inside\n") > 0 and kinds.index("outside\n") == len(kinds) - 1


def test_interact_runs_the_function_at_once_and_on_change(rich):
    run, ids = open_widget(rich, "from ipywidgets import interact\n@interact(n=(0, 10))\ndef square(n=3):\n    print('square', n * n)")
    assert "square 9\n" in run.stdout
    request = send_to_comm(rich, ids["IntSliderModel"], {"method": "update", "state": {"value": 4}, "buffer_paths": []})
    assert "square 16\n" in printed(rich, request)


def test_closing_a_widget_closes_its_comm(rich):
    _, ids = open_widget(rich, "import ipywidgets\nslider = ipywidgets.IntSlider()")
    rich.run("slider.close()").ok()
    assert ids["IntSliderModel"] not in comms(rich)


def test_binary_state_of_widgets_travels_in_buffers(rich):
    run = rich.run("import ipywidgets\nimage = ipywidgets.Image(value=bytes(range(256)))").ok()
    [opened] = [m for m in run.messages if m.type == "comm_open" and m.content["data"]["state"]["_model_name"] == "ImageModel"]
    assert opened.buffers == [bytes(range(256))] and opened.content["data"]["buffer_paths"] == [["value"]]
