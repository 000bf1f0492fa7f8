"""The Jupyter messaging protocol 5.5 as a table: which message may travel on
which channel, with which fields of which types.

Source: "Messaging in Jupyter", the specification in jupyter_client's docs. A
field in `optional` may be absent; fields that are not named are allowed (the
specification says that receivers ignore them), but none may have a wrong type.
"""
from dataclasses import dataclass, field


class SpecError(AssertionError):
    """A message that the specification does not allow."""


def expect(condition, message):
    if not condition:
        raise SpecError(message)


# Types -----------------------------------------------------------------------

def one_of(*values):
    return lambda value: value in values


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def is_str(value):
    return isinstance(value, str)


def is_bool(value):
    return isinstance(value, bool)


def is_dict(value):
    return isinstance(value, dict)


def is_number(value):
    return is_int(value) or isinstance(value, float)


def list_of(check):
    return lambda value: isinstance(value, list) and all(map(check, value))


def maybe(check):
    return lambda value: value is None or check(value)


def is_mimebundle(value):
    """MIME type → text, or any JSON for JSON types."""
    return is_dict(value) and all(
        "/" in mime and (is_str(data) or mime.endswith("json")) for mime, data in value.items())


def is_timestamp(value):
    """ISO 8601 with a time zone."""
    from datetime import datetime
    if not is_str(value):
        return False
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


def is_history(value):
    """Tuples (session, line, input) or (session, line, (input, output))."""
    def entry(item):
        if not (isinstance(item, list) and len(item) == 3 and is_int(item[0]) and is_int(item[1])):
            return False
        text = item[2]
        return is_str(text) or (isinstance(text, list) and len(text) == 2 and is_str(text[0]) and maybe(is_str)(text[1]))
    return isinstance(value, list) and all(map(entry, value))


def is_payloads(value):
    """Payloads of execute_reply: each names its source and brings what that source needs."""
    needs = {
        "page": {"data": is_mimebundle, "start": is_int},
        "set_next_input": {"text": is_str, "replace": is_bool},
        "edit_magic": {"filename": is_str, "line_number": is_int},
        "ask_exit": {"keepkernel": is_bool},
    }
    return isinstance(value, list) and all(
        is_dict(item) and item.get("source") in needs
        and all(name in item and check(item[name]) for name, check in needs[item["source"]].items())
        for item in value)


def is_user_expressions(value):
    def answer(item):
        if not is_dict(item):
            return False
        if item.get("status") == "ok":
            return is_mimebundle(item.get("data")) and is_dict(item.get("metadata"))
        return item.get("status") == "error" and not _problems(ERROR_FIELDS, {}, item)
    return is_dict(value) and all(map(answer, value.values()))


def is_language_info(value):
    return is_dict(value) and not _problems(
        {"name": is_str, "version": is_str, "mimetype": is_str, "file_extension": lambda v: is_str(v) and v.startswith(".")},
        {"pygments_lexer": is_str, "codemirror_mode": lambda v: is_str(v) or is_dict(v), "nbconvert_exporter": is_str},
        value)


def is_version(value):
    parts = value.split(".") if is_str(value) else []
    return len(parts) >= 2 and all(part.isdigit() for part in parts)


# The table -------------------------------------------------------------------

@dataclass
class Body:
    """The content of one message type."""
    channels: tuple
    required: dict = field(default_factory=dict)
    optional: dict = field(default_factory=dict)


ERROR_FIELDS = {"ename": is_str, "evalue": is_str, "traceback": list_of(is_str)}
DISPLAY = {"data": is_mimebundle, "metadata": is_dict}
COMM = {"comm_id": is_str, "data": is_dict}

IOPUB = {
    "status": Body(("iopub",), {"execution_state": one_of("busy", "idle", "starting", "restarting", "dead")}),
    "stream": Body(("iopub",), {"name": one_of("stdout", "stderr"), "text": is_str}),
    "display_data": Body(("iopub",), DISPLAY, {"transient": is_dict}),
    "update_display_data": Body(("iopub",), {**DISPLAY, "transient": lambda v: is_dict(v) and is_str(v.get("display_id"))}),
    "execute_input": Body(("iopub",), {"code": is_str, "execution_count": is_int}),
    "execute_result": Body(("iopub",), {**DISPLAY, "execution_count": is_int}, {"transient": is_dict}),
    "error": Body(("iopub",), ERROR_FIELDS),
    "clear_output": Body(("iopub",), {"wait": is_bool}),
    "iopub_welcome": Body(("iopub",), {"subscription": is_str}),
    "debug_event": Body(("iopub",)),
    "comm_open": Body(("iopub",), {**COMM, "target_name": is_str}, {"target_module": maybe(is_str)}),
    "comm_msg": Body(("iopub",), COMM),
    "comm_close": Body(("iopub",), {"comm_id": is_str}, {"data": is_dict}),
}

STDIN = {"input_request": Body(("stdin",), {"prompt": is_str, "password": is_bool})}

SHELL = ("shell",)
BOTH = ("shell", "control")

# Fields of replies with status ok; those with status error or aborted are below.
REPLIES = {
    "execute_reply": Body(SHELL, {"execution_count": is_int},
                          {"payload": is_payloads, "user_expressions": is_user_expressions}),
    "inspect_reply": Body(SHELL, {"found": is_bool, **DISPLAY}),
    "complete_reply": Body(SHELL, {"matches": list_of(is_str), "cursor_start": is_int, "cursor_end": is_int,
                                   "metadata": is_dict}),
    "history_reply": Body(SHELL, {"history": is_history}),
    "is_complete_reply": Body(SHELL),  # only when it failed: its statuses are its own
    "comm_info_reply": Body(BOTH, {"comms": lambda v: is_dict(v) and all(
        is_dict(c) and is_str(c.get("target_name")) for c in v.values())}),
    "kernel_info_reply": Body(BOTH, {
        "protocol_version": is_version, "implementation": is_str, "implementation_version": is_str,
        "language_info": is_language_info, "banner": is_str},
        {"debugger": is_bool, "supported_features": list_of(is_str), "cob": is_dict,
         "help_links": list_of(lambda v: is_dict(v) and is_str(v.get("text")) and is_str(v.get("url")))}),
    "connect_reply": Body(BOTH, {}, {name: is_int for name in (
        "shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")}),
    # On iopub too, so that every front end learns of it.
    "shutdown_reply": Body((*BOTH, "iopub"), {"restart": is_bool}),
    "interrupt_reply": Body(BOTH),
    "usage_reply": Body(BOTH),
    "debug_reply": Body(("control",)),
    "create_subshell_reply": Body(("control",), {"subshell_id": is_str}),
    "delete_subshell_reply": Body(("control",)),
    "list_subshell_reply": Body(("control",), {"subshell_id": list_of(is_str)}),
}

HEADER = {"msg_id": lambda v: is_str(v) and v != "", "session": is_str, "username": is_str,
          "date": is_timestamp, "msg_type": is_str, "version": is_version}


# The check -------------------------------------------------------------------

def check_message(message):
    """Raises SpecError unless the message is one that a kernel may send on its channel."""
    _check_fields("header", HEADER, {"subshell_id": maybe(is_str)}, message.header)
    expect(is_dict(message.parent), f"parent_header is not an object: {message.parent!r}")
    expect(is_dict(message.metadata), f"metadata is not an object: {message.metadata!r}")
    expect(is_dict(message.content), f"content is not an object: {message.content!r}")
    if message.channel == "iopub" and message.type != "iopub_welcome":
        expect(message.identities, "an iopub message without a topic")
    if message.type == "is_complete_reply" and message.content.get("status") != "error":
        return _check_is_complete(message)
    body = {**IOPUB, **STDIN, **REPLIES}.get(message.type)
    expect(body is not None, f"unknown message type {message.type!r}")
    if message.content.get("status") == "error" and message.channel in BOTH:
        return _check_reply(message, body)  # the error may be that it was asked on the wrong channel
    expect(message.channel in body.channels, f"{message.type} on {message.channel}")
    if message.type == "usage_reply" or message.type == "debug_reply":
        return  # their content is not part of the specification
    if message.type in REPLIES:
        return _check_reply(message, body)
    _check_fields(message.type, body.required, body.optional, message.content)


def _check_reply(message, body):
    content, status = message.content, message.content.get("status")
    expect(status in ("ok", "error", "aborted"), f"{message.type} with status {status!r}")
    if status == "ok":
        _check_fields(message.type, body.required, body.optional, content)
    elif status == "error":
        _check_fields(message.type, ERROR_FIELDS, {"execution_count": is_int, "payload": is_payloads,
                                                   "user_expressions": is_user_expressions}, content)
        if message.type == "execute_reply":
            expect("execution_count" in content, "execute_reply without execution_count")


def _check_is_complete(message):
    expect(message.channel == "shell", f"is_complete_reply on {message.channel}")
    status = message.content.get("status")
    expect(status in ("complete", "incomplete", "invalid", "unknown"), f"is_complete_reply with status {status!r}")
    expect(("indent" in message.content) == (status == "incomplete"), "indent belongs to incomplete, and only there")
    expect(is_str(message.content.get("indent", "")), "indent is not text")


def _check_fields(where, required, optional, content):
    problems = _problems(required, optional, content)
    expect(not problems, f"{where}: {'; '.join(problems)}")


def _problems(required, optional, content):
    problems = []
    for name, check in required.items():
        if name not in content:
            problems.append(f"no {name}")
        elif not check(content[name]):
            problems.append(f"{name} is {_short(content[name])}")
    for name, check in optional.items():
        if name in content and not check(content[name]):
            problems.append(f"{name} is {_short(content[name])}")
    return problems


def _short(value):
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"
