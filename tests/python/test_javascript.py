"""JavaScript sessions: what only their completion, inspection and language promise."""
import pytest

from support import target
from support.outputs import without_colour

pytestmark = pytest.mark.cob_only("runs Python")


@pytest.fixture
def kernel(launch, shared, request):
    kernel = shared.get("javascript")
    if kernel is None or not kernel.is_usable():
        kernel = shared["javascript"] = launch("javascript")
    yield kernel
    report = getattr(request.node, "report", None)
    if report is None or not report.passed:
        kernel.close()


def complete(kernel, code, cursor=None):
    reply = kernel.ask("complete_request", {"code": code, "cursor_pos": len(code) if cursor is None else cursor})
    assert reply["status"] == "ok"
    return reply


def matches(kernel, code, cursor=None):
    return complete(kernel, code, cursor)["matches"]


def kinds(kernel, code):
    return {kind["text"]: kind["type"] for kind in complete(kernel, code)["metadata"]["_jupyter_types_experimental"]}


def inspect(kernel, code, cursor=None, detail=0):
    reply = kernel.ask("inspect_request", {"code": code, "cursor_pos": len(code) if cursor is None else cursor, "detail_level": detail})
    assert reply["status"] == "ok"
    return without_colour(reply["data"]["text/plain"]) if reply["found"] else None


def fields(text):
    """The fields that have one line."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {title: value.strip() for title, value in pairs}


# The language ----------------------------------------------------------------

def test_the_engine_is_named(kernel):
    info = kernel.info["language_info"]
    assert info["version"].startswith("ES") and info["mimetype"] == "text/x.typescript"
    assert info["engine"]["name"] in kernel.info["banner"] and info["engine"]["version"] in kernel.info["banner"]


# Completion ------------------------------------------------------------------

@pytest.mark.parametrize("code, expected", [
    ("parseI", "parseInt"), ("'abc'.toUpp", "toUpperCase"), ("`${x}`.at", "at"), ("[1, 2].fla", "flat"), ("/x/.tes", "test"),
    ("12n.toStr", "toString"), ("1..toFi", "toFixed"), ("new Map([[1, 2]]).ge", "get"), ("Math.flo", "floor"), ("JSON.pars", "parse"),
    ("console.lo", "log"), ("Promise.allS", "allSettled"), ("awa", "await"), ("inter", "interface"), ("let fresh = 1\nfre", "fresh"),
    ("const {first, other: [second]} = x\nsec", "second"), ("f(...parseI", "parseInt"), ("`${parseI", "parseInt"), ("cob.che", "checkpoint"),
])
def test_what_can_be_written(kernel, code, expected):
    assert expected in matches(kernel, code)


@pytest.mark.parametrize("code", ["", "(((", "'parseI", "`parseI", "// parseI", "/* parseI", "12", "f().", "no_such.x", "a[", "}", "/x", "null.x",
                                  "this.#x", "\\", "#", "import '", "class { static {", "parseInt().x", "🦀", "a.b.", "new ", "?."])
def test_odd_code_can_be_completed_without_harm(kernel, code):
    complete(kernel, code)


@pytest.mark.parametrize("code", ["'parseI", "`parseI", "// parseI", "/* parseI", "null.x", "f().parse", "undefined.x"])
def test_there_is_nothing_to_complete(kernel, code):
    assert matches(kernel, code) == []


def test_kinds_are_told(kernel):
    kernel.run("var kindA = 1, kindB = () => 1, kindC = class {}, kindD = {get computed() { return 1 }}").ok()
    assert kinds(kernel, "kind") == {"kindA": "instance", "kindB": "function", "kindC": "class", "kindD": "instance"}
    assert kinds(kernel, "kindD.comp") == {"computed": "property"}
    assert kinds(kernel, "functio") == {"function": "keyword"}


def test_members_are_followed_through_dots_and_brackets(kernel):
    kernel.run("var deep = {a: {'b-c': [{target_member: 1}]}}").ok()
    assert matches(kernel, "deep.a['b-c'][0].targ") == ["target_member"]
    assert matches(kernel, "deep?.a!['b-c'][0]?.targ") == ["target_member"]
    assert matches(kernel, "deep\n  // a comment\n  .a['b-c'][0]\n  .targ") == ["target_member"]


def test_keys_are_completed_as_literals(kernel):
    kernel.run("var keyed = {'first key': 1, second: 2, 'it\\'s': 3}").ok()
    assert matches(kernel, "keyed['fir") == ["'first key'"]
    assert matches(kernel, 'keyed["it') == ['"it\'s"']
    assert matches(kernel, "keyed['it") == ["'it\\'s'"]
    assert matches(kernel, "keyed['sec']", cursor=10) == ["'second"]
    assert '"first key"' in matches(kernel, "keyed[")
    assert "first key" not in matches(kernel, "keyed.")


def test_private_and_symbol_and_index_members_are_not_proposed(kernel):
    kernel.run("var odd = Object.assign(new (class { #secret = 1 })(), {[Symbol('s')]: 1, 7: 1, 'a b': 1, fine: 1})").ok()
    assert "fine" in matches(kernel, "odd.")
    assert not {"#secret", "7", "a b"} & set(matches(kernel, "odd."))


def test_nothing_of_the_user_runs(kernel):
    kernel.run("var touched = []\n"
               "var proxied = new Proxy({inside: 1}, new Proxy({}, {get(_, trap) { touched.push(trap) }}))\n"
               "var trapped = {get value() { touched.push('getter'); return {inside: 1} }, __proto__: proxied}\n"
               "var named = {get [Symbol.toStringTag]() { touched.push('tag') }, get constructor() { touched.push('constructor') },\n"
               "  [Symbol.for('Deno.customInspect')]() { touched.push('inspect') }, toJSON() { touched.push('toJSON') },\n"
               "  get size() { touched.push('size') }, get length() { touched.push('length') }}\n"
               "class Odd { static get name() { touched.push('name') } }\n"
               "var odd = new Odd(); undefined").ok()
    assert matches(kernel, "proxied.ins") == matches(kernel, "trapped.value.ins") == matches(kernel, "trapped.ins") == []
    assert matches(kernel, "trapped.val") == ["value"]
    assert fields(inspect(kernel, "proxied"))["Type"] == "Proxy"
    assert fields(inspect(kernel, "trapped.value"))["Type"] == "accessor"
    for code in ("named", "named.size", "trapped", "Odd", "odd", "odd.x", "proxied.x", "named['", "proxied['"):
        inspect(kernel, code, detail=1)
        complete(kernel, code)
        complete(kernel, code + ".")
    assert kernel.run("touched.length").ok().result == "0"


OVERWRITE = """
/** What it does. */
function typed(a: number) {}
var overwritten = {member_of_it: 1, other_member: [1, 2]}
var calls = 0
const spy = () => { calls++; throw new Error('called') }
for (const [owner, names] of [
  [Array.prototype, ['push', 'map', 'join', 'includes', 'slice']], [String.prototype, ['slice', 'startsWith', 'includes', 'charCodeAt']],
  [Object, ['getOwnPropertyDescriptor', 'getPrototypeOf', 'keys', 'hasOwn', 'is']], [Reflect, ['ownKeys', 'getPrototypeOf']],
  [JSON, ['stringify', 'parse']], [Map.prototype, ['get', 'set', 'has']], [Set.prototype, ['add', 'has']], [Function.prototype, ['toString', 'call', 'apply', 'bind']],
]) for (const name of names) owner[name] = spy
Object.prototype.toJSON = spy
Object.defineProperty(Object.prototype, 'value', {__proto__: null, get: spy, configurable: true})
Object.defineProperty(Object.prototype, 'get', {__proto__: null, get: spy, configurable: true})
Object.defineProperty(Array.prototype, 0, {__proto__: null, set: spy, get: spy, configurable: true})
Array.prototype[Symbol.iterator] = spy
String.prototype[Symbol.iterator] = spy
String = Object = Array = Map = JSON = Reflect = undefined
calls = 0
undefined
"""


def test_a_session_that_has_overwritten_everything_can_be_asked(launch):
    kernel = launch("javascript")
    reply = kernel.run(OVERWRITE).reply
    assert reply["status"] == "ok", reply
    assert matches(kernel, "overwritten.mem") == ["member_of_it"]
    assert matches(kernel, "overwritten['mem") == ["'member_of_it'"]
    assert "overwritten" in matches(kernel, "overwr")
    assert fields(inspect(kernel, "overwritten.other_member"))["Value"] == "[ 1, 2 ]"
    assert "parseInt" in inspect(kernel, "parseInt")
    assert "typed(a: number)" in inspect(kernel, "typed(", detail=1) and "What it does." in inspect(kernel, "typed")
    assert "getTime" in matches(kernel, "new Date().getT")
    reply = kernel.run("if (calls > 0) throw new RangeError(`${calls} calls`)").reply
    assert reply["status"] == "ok", reply
    kernel.close()


def test_many_members_are_bounded(kernel):
    kernel.run("var many = {}; for (let n = 0; n < 100000; n++) many['member' + n] = n\n"
               "var bytes = new Uint8Array(50_000_000); var list = new Array(5_000_000).fill(0); undefined").ok()
    assert len(matches(kernel, "many.")) == 5000
    assert set(matches(kernel, "many.member9999")) == {"member9999", *(f"member9999{n}" for n in range(10))}
    assert "subarray" in matches(kernel, "bytes.sub") and "push" in matches(kernel, "list.pu") and matches(kernel, "list.leng") == ["length"]
    assert matches(kernel, "bytes['") == []
    assert len(inspect(kernel, "many")) < 2000 and len(inspect(kernel, "bytes")) < 2000


def test_an_interrupt_of_nothing_does_not_spoil_the_next_question(kernel):
    request = kernel.interrupt_by_message()
    kernel.client.until(lambda: kernel.client.reply_to(request))
    assert "parseInt" in matches(kernel, "parseI")


# Inspection ------------------------------------------------------------------

def test_functions_are_shown_as_they_were_written(kernel):
    kernel.run("/**\n * Adds.\n * @param a one\n */\nfunction typed<T>(a: number, b: {c: T} = {c: 1 as T}): number {\n  return a // the body\n}").ok()
    text = inspect(kernel, "typed(1, ")
    assert fields(text)["Signature"] == "typed(a: number, b: {c: T} = {c: 1 as T}): number"
    assert "Adds.\n@param a one" in text and "the body" not in text
    assert "return a // the body" in inspect(kernel, "typed", detail=1)


def test_the_latest_definition_is_described(kernel):
    kernel.run("/** Old. */ function renewed(a) { return 1 }").ok()
    kernel.run("/** New. */ function renewed(b) { return 2 }").ok()
    text = inspect(kernel, "renewed")
    assert "New." in text and "Old." not in text and "renewed(b)" in text


def test_classes_methods_and_accessors(kernel):
    kernel.run("/** A box. */\nclass Box<T> {\n  #held: T\n  constructor(held: T, ...more: T[]) { this.#held = held }\n"
               "  /** Opens it. */\n  open(how = 'wide') { return this.#held }\n  get held() { return this.#held }\n}\nvar box = new Box<number>(1); undefined").ok()
    text = inspect(kernel, "Box")
    assert fields(text)["Init signature"] == "Box(held: T, ...more: T[])" and "A box." in text and fields(text)["Type"] == "class"
    text = inspect(kernel, "box.open(")
    assert fields(text)["Signature"] == "box.open(how = 'wide')" and "Opens it." in text
    assert fields(inspect(kernel, "box.held"))["Type"] == "accessor"
    assert fields(inspect(kernel, "box"))["Type"] == "Box"


@pytest.mark.parametrize("code, signature, page", [
    ("parseInt", "parseInt(arg1, arg2, …)", "/parseInt"), ("[].map", "Array.prototype.map(arg1, …)", "/Array/map"),
    ("Math.max(", "Math.max(arg1, arg2, …)", "/Math/max"), ("new Map().get(", "Map.prototype.get(arg1, …)", "/Map/get"),
])
def test_built_in_functions_have_a_page(kernel, code, signature, page):
    text = inspect(kernel, code)
    assert fields(text)["Signature"] == signature
    assert "developer.mozilla.org" in text and text.split("Docstring: ")[1].split("\n")[0].endswith(page)


def test_what_cob_brings_is_documented(kernel):
    assert "Has a checkpoint of the session taken" in inspect(kernel, "cob.checkpoint(")
    assert "Asks for a yes" in inspect(kernel, "confirm")


@pytest.mark.parametrize("code, kind, value", [
    ("1", "number", "1"), ("-0", "number", "-0"), ("10n", "bigint", "10n"), ("'a\\n'", "string", '"a\\n"'), ("undefined", "undefined", "undefined"),
    ("null", "null", "null"), ("Symbol('x')", "symbol", "Symbol(x)"), ("[1, , 'b']", "Array", '[ 1, <empty>, "b" ]'), ("({a: {b: [1]}})", "Object", "{ a: { b: [ 1 ] } }"),
    ("new Map([[1, {a: 2}]])", "Map", "Map(1) { 1 => { a: 2 } }"), ("new Set(['x'])", "Set", 'Set(1) { "x" }'), ("/a[/]/giu", "RegExp", "/a[/]/giu"),
    ("new Date(0)", "Date", "1970-01-01T00:00:00.000Z"), ("new TypeError('no')", "TypeError", "TypeError: no"), ("new Uint8Array(3)", "Uint8Array", "Uint8Array(3) [ 0, 0, 0 ]"),
    ("Promise.resolve(1)", "Promise", "Promise {}"), ("new (class Own { x = 1 })()", "Own", "Own { x: 1 }"), ("Object.create(null)", "Object", "{}"),
    ("[[[[[1]]]]]", "Array", "[ [ [ [Array] ] ] ]"),
])
def test_values_are_shown_briefly(kernel, code, kind, value):
    kernel.run(f"globalThis.shown = {code}; undefined").ok()
    found = fields(inspect(kernel, "shown"))
    assert (found["Type"], found["Value"]) == (kind, value)


@pytest.mark.parametrize("code", ["no_such_name_at_all", "", "   ", "1 +", "(", "no_such.attribute", "return", "'text'"])
def test_what_is_not_there_is_not_found(kernel, code):
    assert inspect(kernel, code) is None


def test_functions_around_the_cursor_are_found(kernel):
    kernel.run("function outer(first) {}\nfunction inner(second) {}").ok()
    code = "outer(1, inner('a(', [2, "
    assert "inner(second)" in inspect(kernel, code)
    assert "outer(first)" in inspect(kernel, code, cursor=8)
    assert "outer(first)" in inspect(kernel, "outer(unknown_name", cursor=10)
