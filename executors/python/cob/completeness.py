"""Whether a cell is complete, and how the next line is indented."""


def reply(code):
    return '{"status":"unknown"}'
