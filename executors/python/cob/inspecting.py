"""What an object is: signature, documentation, source."""


def reply(code, cursor, detail):
    return '{"status":"ok","found":false,"data":{},"metadata":{}}'
