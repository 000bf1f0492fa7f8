"""Comms: messages between widgets in the front end and objects in the session.

The ``comm`` package holds the protocol (open, message, close, targets); ipywidgets
and others ask it for a comm and for the manager. Here its two functions are
replaced, so that messages travel through the native side.
"""

import sys

import _cob
from cob import encoding, engine

_manager = None


def plug_in(comm):
    """The ``comm`` package was imported: its comms are ours from now on."""
    global _manager
    from comm.base_comm import BaseComm, CommManager

    class Comm(BaseComm):
        """A comm of this session."""

        def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
            publish(self.comm_id, msg_type, data, metadata, buffers, keys)

    class Manager(CommManager):
        """Opens and closes comms on behalf of the front end."""

        def comm_open(self, stream, ident, msg):
            content = msg["content"]
            if content["target_name"] not in self.targets:
                _cob.comm("close", content["comm_id"], None, None, "{}", "{}", [])
                return
            super().comm_open(stream, ident, msg)

        def comm_msg(self, stream, ident, msg):
            if msg["content"]["comm_id"] in self.comms:
                super().comm_msg(stream, ident, msg)

        def comm_close(self, stream, ident, msg):
            if msg["content"]["comm_id"] in self.comms:
                super().comm_close(stream, ident, msg)

    _manager = Manager()
    comm.create_comm = Comm
    comm.get_comm_manager = manager


def manager():
    """The manager of the session; the ``comm`` package must be importable."""
    if _manager is None:
        import comm  # noqa: F401  (the hook after its import plugs us in)
    return _manager


def count():
    """How many comms are open."""
    return 0 if _manager is None else len(_manager.comms)


def publish(comm_id, msg_type, data, metadata, buffers, keys):
    """Send comm_open, comm_msg or comm_close to the front end."""
    views = [memoryview(part).cast("B") if memoryview(part).c_contiguous else bytes(part) for part in buffers or ()]
    _cob.comm(
        msg_type.removeprefix("comm_"), comm_id, keys.get("target_name"), keys.get("target_module"),
        encoding.dumps(data if data is not None else {}), encoding.dumps(metadata or {}), [bytes(v) for v in views],
    )


def receive(action, comm_id, target_name, target_module, data_json, metadata_json, buffers):
    """A comm message of the front end. Returns 'ok', 'error' or 'interrupted'."""
    if _manager is None and "comm" not in sys.modules:
        if action == "open":  # nobody can have registered a target
            _cob.comm("close", comm_id, None, None, "{}", "{}", [])
        return "ok"
    content = {"comm_id": comm_id, "data": encoding.loads(data_json)}
    if action == "open":
        content["target_name"], content["target_module"] = target_name, target_module
    header = dict(encoding.loads(_cob.parent()), msg_type=f"comm_{action}")
    message = {
        "header": header, "parent_header": {}, "metadata": encoding.loads(metadata_json),
        "content": content, "buffers": [memoryview(part) for part in buffers],
        "msg_id": header.get("msg_id"), "msg_type": header["msg_type"],
    }
    loop = sys.modules.get("cob.session_loop")
    try:
        if loop is not None:
            loop.enter()  # callbacks may create tasks
        try:
            getattr(manager(), f"comm_{action}")(None, None, message)
        finally:
            if loop is not None:
                loop.leave()
        if engine.shell is None:  # with a shell its events have done this
            for hook in engine.after_cell:
                hook()
    except BaseException as error:
        return engine.fail(error)
    return "ok"
