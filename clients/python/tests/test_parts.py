"""The parts that need no server: errors, pauses, events and results, schemas of tools, where the server is."""
import base64
import json
import re
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

import cob_client
from cob_client import errors
from cob_client.backoff import Backoff, Patience
from cob_client.discovery import Target
from cob_client.events import Event
from cob_client.result import Outputs, Result, Settlement
from cob_client.session import milliseconds
from cob_client.tools import schema_of

TABLE = Path(__file__).parents[3] / "protocol/src/error.rs"


def test_every_code_of_the_servers_table_has_a_class_and_there_are_no_others():
    if not TABLE.exists():
        pytest.skip("not in the repository of cob")
    rows = re.findall(r'^    \w+ "(\w+)" \w+ "', TABLE.read_text(), re.MULTILINE)
    assert len(rows) > 20 and set(rows) == set(errors.FAMILIES)


def test_a_refusal_becomes_the_error_of_its_family():
    content = {"status": "error", "ename": "Busy", "evalue": "full", "code": "busy", "hint": "wait", "retry_after_ms": 250}
    error = errors.from_content(content)
    assert isinstance(error, cob_client.Busy) and isinstance(error, cob_client.LimitReached)
    assert (error.code, error.hint, error.retry_after, error.ename) == ("busy", "wait", 0.25, "Busy")
    assert str(error) == "[busy] full. wait"


def test_a_code_of_a_newer_server_is_an_error_too():
    error = errors.from_content({"code": "out_of_coffee"})
    assert type(error) is cob_client.CobError and error.code == "out_of_coffee" and error.retry_after is None


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_pauses_grow_by_two_up_to_the_longest_and_end_with_patience():
    clock = Clock()
    backoff = Backoff(Patience(first=1.0, longest=6.0, total=20.0), clock, lambda: 1.0)
    assert [backoff.next() for _ in range(4)] == [1.0, 2.0, 4.0, 6.0]
    clock.now += 18.5
    assert backoff.next() == 1.5
    clock.now += 1.5
    assert backoff.next() is None


def test_jitter_takes_up_to_half_of_a_pause_and_the_servers_word_counts_more():
    backoff = Backoff(Patience(first=1.0, longest=8.0, total=99.0), Clock(), lambda: 0.0)
    assert [backoff.next(), backoff.next(), backoff.next(at_least=7.0)] == [0.5, 1.0, 7.0]


def test_a_thousand_attempts_do_not_overflow():
    backoff = Backoff(Patience(first=0.1, longest=2.0, total=1e9), Clock(), lambda: 1.0)
    assert [backoff.next() for _ in range(2000)][-1] == 2.0


def event(number, kind, **content):
    return Event("s1.e1", number, kind, content)


def result(*events, state="resolved", **value):
    outputs = Outputs()
    for each in events:
        outputs.add(each)
    return Result("s1.e1", Settlement(state, {"status": "ok", **value}, len(events)), outputs)


def test_text_is_joined_in_order_and_raw():
    got = result(event(1, "stream", name="stdout", text="\x1b[31ma"), event(2, "stream", name="stderr", text="!"),
                 event(3, "stream", name="stdout", text="b\r\n"), execution_count=4)
    assert (got.stdout, got.stderr, got.ok, got.error, got.execution_count) == ("\x1b[31mab\r\n", "!", True, None, 4)


def test_rich_results_prefer_the_value_then_the_newest_display():
    png = base64.b64encode(b"\x89PNG").decode()
    got = result(event(1, "display", data={"text/html": "<old>", "image/png": png}),
                 event(2, "display", data={"text/html": ["<n", "ew>"], "application/json": {"a": 1}}),
                 event(3, "result", data={"text/plain": "42"}, execution_count=1))
    assert (got.text, got.html, got.png, got.json) == ("42", "<new>", b"\x89PNG", {"a": 1})
    assert [output.html for output in got.displays] == ["<old>", "<new>"]
    assert "text='42'" in repr(got) and "displays=2" in repr(got)


def test_a_damaged_picture_is_none():
    assert result(event(1, "display", data={"image/png": "x"})).png is None


def test_displays_are_updated_by_id_and_cleared():
    def display(n, kind, text):
        return event(n, kind, data={"text/plain": text}, transient={"display_id": "d"})

    got = result(display(1, "display", "a"), display(2, "update_display", "b"))
    assert [output.text for output in got.displays] == ["b"]
    got = result(display(1, "display", "a"), event(2, "clear_output", wait=True))
    assert len(got.displays) == 1
    got = result(display(1, "display", "a"), event(2, "clear_output", wait=True), event(3, "stream", name="stdout", text="x"))
    assert got.displays == [] and got.stdout == "x"
    assert result(display(1, "display", "a"), event(2, "clear_output", wait=False)).displays == []


def test_gaps_and_truncation_are_told():
    got = result(Event("s1.e1", 9, "gap", {"from": 3, "next": 10}), event(10, "truncated", written=9, kept=4, dropped=5))
    assert got.gaps == [(3, 10)] and got.truncated == {"written": 9, "kept": 4, "dropped": 5}


def test_a_failure_has_the_error_of_the_reply_and_is_raised_with_its_traceback():
    got = result(state="rejected", status="error", ename="ValueError", evalue="no", traceback=["line 1", "ValueError: no"])
    assert not got.ok and got.error.ename == "ValueError" and got.error.code == ""
    error = cob_client.ExecutionError(got)
    assert error.traceback == ["line 1", "ValueError: no"] and str(error).endswith("line 1\nValueError: no")
    assert error.result is got


def test_events_show_themselves_shortly():
    shown = repr(event(3, "stream", name="stdout", text="x" * 500))
    assert shown.startswith("<stdout s1.e1#3 'xxx") and len(shown) < 120


def test_schemas_come_from_type_hints():
    def tool(city: str, days: int = 3, units: Literal["C", "F"] = "C", tags: Optional[list[str]] = None, other: Any = 0):
        """Weather."""

    assert schema_of(tool) == {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "units": {"enum": ["C", "F"]},
            "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
            "other": {},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert schema_of(lambda **anything: 0)["additionalProperties"] is True


def test_seconds_become_milliseconds_rounded_up():
    assert [milliseconds(each) for each in (None, 0, 0.0001, 1.5, 2)] == [None, 0, 1, 1500, 2000]


def test_the_server_is_found_by_url_by_file_by_variable_and_by_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COB_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("COB_SERVER", raising=False)
    with pytest.raises(cob_client.ServerNotFound, match="cob serve"):
        Target().resolve()
    (tmp_path / "server.json").write_text(json.dumps({"version": 1, "ipc": "ipc:///a", "tcp": None, "curve": None}))
    assert Target().resolve().url == "ipc:///a"
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"ipc": None, "tcp": {"endpoint": "tcp://127.0.0.1:5", "key": "ab"}}))
    monkeypatch.setenv("COB_SERVER", str(other))
    assert (Target().resolve().url, Target().resolve().key) == ("tcp://127.0.0.1:5", b"ab")
    monkeypatch.setenv("COB_SERVER", "tcp://h:1")
    assert (Target(key="k").resolve().url, Target(key="k").resolve().key) == ("tcp://h:1", b"k")
    assert Target("ipc:///b").resolve().url == "ipc:///b"
    assert "secret" not in repr(Target("x", key="secret"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ipc": 3}'])
def test_files_that_describe_no_server_are_said_so(tmp_path, text):
    (tmp_path / "server.json").write_text(text)
    with pytest.raises(cob_client.ServerNotFound):
        Target(tmp_path / "server.json").resolve()
