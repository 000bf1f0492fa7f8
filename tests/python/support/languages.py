"""The table of the executor suite: one row per language, with what its cells look like.

Whatever is in this table is promised by every executor. A new language is a new row.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """Code of one language for each promise."""
    kernel: str  # name of the kernelspec
    info: dict  # part of the language_info
    say: str  # prints {0} to stdout
    complain: str  # prints {0} to stderr
    fail: str  # an error with the message {0}
    ename: str  # its name
    third_line: str  # how a traceback says that it comes from the third line: a regular expression
    unknown_ename: str  # the name of the error when a name is not defined
    zero: tuple  # three cells: defines `kept` as 41, adds one, shows it
    result: tuple  # an expression and how its value looks
    nothing: str  # an expression that has no result
    text: str  # the text {0} as a value
    text_result: str  # how the text {0} is shown
    ask: str  # asks {0}, and prints the answer in brackets
    ask_secretly: str
    spin: str  # says that it is ready, then computes for ever
    wait: str  # says that it is ready, then waits for ever
    shout: str  # says that it is ready, then prints for ever
    display: str  # displays the HTML {0}
    update: str  # displays "one" as HTML, then puts "two" in its place
    clear: str
    late: str  # prints "late" when the cell has ended
    mixed: str  # prints "1" to stdout, "2" to stderr, "3" to stdout
    flood: str  # prints {0} lines of 100 characters
    documented: str  # defines `documented(alpha, beta)`, with the documentation "What it does."
    members: str  # defines `box`, which has the member `content_of_box`
    echo: str  # registers the comm target "echo", which answers with what it gets and its buffers
    complete: tuple
    incomplete: tuple
    invalid: tuple
    undo: str
    end_process: str | None  # ends the worker process, where code can do that


PYTHON = Language(
    kernel="rich",
    info={"name": "python", "file_extension": ".py"},
    say="print({0!r})",
    complain="import sys; print({0!r}, file=sys.stderr)",
    fail="raise ValueError({0!r})",
    ename="ValueError",
    third_line=r"(line |> )3\b",
    unknown_ename="NameError",
    zero=("kept = 41", "kept = kept + 1", "kept"),
    result=("[1, 'a']", "[1, 'a']"),
    nothing="None",
    text="{0!r}",
    text_result="'{0}'",
    ask="print('[' + input({0!r}) + ']')",
    ask_secretly="from getpass import getpass; print('[' + getpass({0!r}) + ']')",
    spin="print('ready', flush=True)\nwhile True: pass",
    wait="import time\nprint('ready', flush=True)\ntime.sleep(600)",
    shout="print('ready', flush=True)\nwhile True: print('x' * 100)",
    display="display({{'text/html': {0!r}}}, raw=True)",
    update="handle = display({'text/html': 'one'}, raw=True, display_id=True)\nhandle.update({'text/html': 'two'}, raw=True)",
    clear="from IPython.display import clear_output; clear_output()",
    late="import asyncio\nasync def later():\n    print('late')\ntask = asyncio.create_task(later())",
    mixed="import sys\nprint('1'); print('2', file=sys.stderr); print('3')",
    flood="for _ in range({0}): print('x' * 99)",
    documented="def documented(alpha, beta=2):\n    '''What it does.'''\n    return alpha",
    members="class Box: pass\nbox = Box(); box.content_of_box = 1",
    echo="from comm import get_comm_manager\ndef echo(comm, message):\n    @comm.on_msg\n    def answer(message):\n"
         "        comm.send(message['content']['data'], buffers=message['buffers'])\n"
         "get_comm_manager().register_target('echo', echo)",
    complete=("1", "x = [1, 2]", ""),
    incomplete=("def f(x):", "f(1,", "'''a"),
    invalid=("x = = 1", ")"),
    undo="import cob; cob.undo({0})",
    end_process="import os; os._exit(3)",
)

JAVASCRIPT = Language(
    kernel="javascript",
    info={"name": "typescript", "file_extension": ".ts"},
    say="console.log({0!r})",
    complain="console.error({0!r})",
    fail="throw new RangeError({0!r})",
    ename="RangeError",
    third_line=r"<cell \d+>:3:7",
    unknown_ename="ReferenceError",
    zero=("let kept: number = 41", "kept = kept + 1; undefined", "kept"),
    result=("[1, 'a']", '[ 1, "a" ]'),
    nothing="undefined",
    text="{0!r}",
    text_result='"{0}"',
    ask="console.log('[' + cob.input({0!r}) + ']')",
    ask_secretly="console.log('[' + cob.input({0!r}, {{password: true}}) + ']')",
    spin="console.log('ready')\nwhile (true);",
    wait="console.log('ready')\nawait new Promise((done) => setTimeout(done, 1e9))",
    shout="console.log('ready')\nwhile (true) console.log('x'.repeat(100))",
    display="cob.display({{'text/html': {0!r}}}, {{raw: true}}); undefined",
    update="const handle = await cob.display({'text/html': 'one'}, {raw: true})\n"
           "await handle.update({'text/html': 'two'}, {raw: true}); undefined",
    clear="cob.clearOutput()",
    late="setTimeout(() => console.log('late'), 1); undefined",
    mixed="console.log('1'); console.error('2'); console.log('3')",
    flood="for (let line = 0; line < {0}; line++) console.log('x'.repeat(99))",
    documented="/** What it does. */\nfunction documented(alpha: unknown, beta = 2) {\n  return alpha\n}",
    members="class Box { content_of_box = 1 }\nconst box = new Box()",
    echo="cob.comm.register('echo', (comm) => {\n"
         "  comm.onMessage = (message) => comm.send(message.data, {buffers: message.buffers})\n})",
    complete=("1", "const x = [1, 2]", ""),
    incomplete=("function f(x) {", "f(1,", "`a"),
    invalid=("x = = 1", ")"),
    undo="cob.undo({0})",
    end_process=None,
)

LANGUAGES = {"python": PYTHON, "javascript": JAVASCRIPT}
