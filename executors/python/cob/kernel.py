"""``get_ipython().kernel``: the little of ipykernel's kernel object that libraries use."""

import _cob
from cob import encoding, engine


class Session:
    """The messaging session as libraries see it; sending is the business of the native side."""

    key = b""

    @property
    def session(self):
        return encoding.loads(_cob.parent()).get("session", "")

    @property
    def username(self):
        return encoding.loads(_cob.parent()).get("username", "")

    def msg_header(self, msg_type):
        return dict(encoding.loads(_cob.parent()), msg_type=msg_type)


class Kernel:
    """The running kernel."""

    implementation = "cob"
    implementation_version = _cob.version
    banner = ""
    iopub_socket = shell_stream = control_stream = None

    def __init__(self, shell):
        self.shell = shell
        self.session = Session()

    @property
    def comm_manager(self):
        from cob import comms

        return comms.manager()

    @property
    def execution_count(self):
        return engine.count

    @property
    def log(self):
        import logging

        return logging.getLogger("cob")

    @property
    def user_ns(self):
        return engine.namespace

    def get_parent(self, channel=None):
        """The message that the running code answers."""
        return {"header": encoding.loads(_cob.parent()), "parent_header": {}, "metadata": {}, "content": {}}

    @property
    def _parent_header(self):
        return self.get_parent()
