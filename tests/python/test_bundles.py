"""What a session holds is written down in one interpreter and found again in another, or is reported."""
import shutil

import pytest

from support import target
from support.bundles import Session, reasons

pytestmark = pytest.mark.cob_only("keeps no checkpoints")

PYTHONS = {"rich": target.RICH, "bare": target.BARE, **target.pythons()}


@pytest.fixture(params=sorted(PYTHONS))
def session(request, tmp_path):
    """In every Python there is."""
    if PYTHONS[request.param] is None:
        pytest.skip(f"{request.param} is not here")
    return Session(PYTHONS[request.param], tmp_path)


@pytest.fixture(params=["with cloudpickle", "without"])
def rich(request, tmp_path):
    """With numpy and pandas; with cloudpickle, if it is there, and without."""
    return Session(target.RICH, tmp_path, () if request.param == "with cloudpickle" else ("cloudpickle",))


def keep(session, code, check, missing=()):
    """Saves what `code` makes, and checks it elsewhere."""
    outline = session.save(code)
    assert sorted(reasons(outline)) == sorted(missing), outline["missing"]
    return session.load(check)


def test_aliases_and_cycles(session):
    keep(session, "a = [1]; b = {'a': a, 'b': (a, a)}; b['self'] = b; c = set(); d = [c, b]",
         "assert b['a'] is a and b['b'][1] is a and b['self'] is b and d[0] is c and d[1] is b")


def test_functions_use_the_live_variables(session):
    keep(session, "x = 1\ndef f(): return x\ng = lambda y: f() + y",
         "x = 5\nassert f() == 5 and g(1) == 6 and f.__globals__ is globals() and f.__module__ == '__main__'")


def test_closures_share_their_variables(session):
    keep(session, """
def counter(start):
    def up(): nonlocal start; start += 1; return start
    def get(): return start
    def late(): return unset
    if start is None: unset = 1
    return up, get, late
up, get, late = counter(1)
""", """
up()
assert get() == 2
try: late()
except NameError: pass
else: assert False
""")


def test_all_that_belongs_to_a_function(session):
    keep(session, """
shared = []
def f(a, b=shared, /, *c, d: int = 3, **e) -> str:
    "Says so."
    return f
f.note = shared
async def co(): return 1
def gen(): yield 2
async def agen(): yield 3
def outer():
    def inner(n): return 1 if n < 2 else n * inner(n - 1)
    return inner
fac = outer()
""", """
import inspect
assert f.__defaults__[0] is shared and f.note is shared and f(1) is f and f.__kwdefaults__ == {'d': 3}
assert f.__annotations__ == {'d': int, 'return': str} and f.__doc__ == 'Says so.'
assert str(inspect.signature(f)) == '(a, b=[], /, *c, d: int = 3, **e) -> str'
assert inspect.iscoroutinefunction(co) and list(gen()) == [2] and inspect.isasyncgenfunction(agen)
assert fac(5) == 120 and fac.__qualname__ == 'outer.<locals>.inner'
""")


def test_classes(session):
    keep(session, """
import abc, enum, functools, typing, dataclasses, collections
log = []
class Base:
    kinds = []
    def __init_subclass__(cls, *, must, **rest): log.append(must); Base.kinds.append(cls)
    def __set_name__(self, owner, name): log.append(name)
    @property
    def name(self): return type(self).__name__
    @classmethod
    def make(cls): return cls()
    @staticmethod
    def stay(): return 1
class Child(Base, must=1):
    def name_of_base(self): return super().name
    member = Base()
Base.favourite = Child
class Meta(type):
    def __new__(cls, name, bases, body): log.append(name); return super().__new__(cls, name, bases, body)
    def __setattr__(cls, name, value): raise AttributeError(name)
class Made(metaclass=Meta): pass
class Slots:
    __slots__ = ("a", "__b")
    def __init__(self): self.a, self.__b = 1, 2
    def both(self): return self.a, self.__b
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
class Square(Shape):
    def area(self): return 4
Shape.register(Slots)
@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list, compare=False)
T = typing.TypeVar("T")
class Box(typing.Generic[T]): pass
class Pair(typing.NamedTuple):
    one: int
    two: str = "2"
Old = collections.namedtuple("Old", "a b")
class Named(typing.TypedDict):
    a: int
class Error(Exception): pass
class Lazy:
    @functools.cached_property
    def value(self): return 42
@functools.lru_cache(maxsize=7)
def cached(n): return n * 2
@functools.singledispatch
def kind(value): return "object"
@kind.register
def _of_int(value: int): return "int"
cached(2), kind(1), kind("")
values = [Child(), Made(), Slots(), Square(), Point(1), Box(), Pair(1), Old(1, 2), Error("x"), Lazy()]
""", """
import dataclasses
child, made, slots, square, point, box, pair, old, error, lazy = values
assert type(child) is Child and Base.kinds == [Child] and Base.favourite is Child and child.name_of_base() == 'Child'
assert log == ['member', 1, 'Made'] and type(Child.make()) is Child and Child.stay() == 1
class Other(Base, must=2): pass
assert log[-1] == 2
assert type(Made) is Meta and type(made) is Made
assert slots.both() == (1, 2) and not hasattr(slots, '__dict__') and isinstance(slots, Shape)
try: Shape()
except TypeError: pass
else: assert False
assert square.area() == 4 and isinstance(square, Shape)
assert point == Point(1) and Point(1) < Point(2) and [f.name for f in dataclasses.fields(Point)] == ['x', 'y']
assert Point(3).y == [] and dataclasses.replace(point, x=2).x == 2
assert Box.__parameters__ == (T,) and Box[int].__origin__ is Box and type(box) is Box
assert Pair(5) == (5, '2') and pair._asdict() == {'one': 1, 'two': '2'} and type(old) is Old and Old._make('ab').b == 'b'
assert Named(a=1) == {'a': 1} and type(error) is Error and error.args == ('x',)
assert lazy.value == 42 and cached(4) == 8 and cached.cache_parameters()['maxsize'] == 7
assert kind(1) == 'int' and kind('') == 'object'
""")


def test_enumerations(session):
    keep(session, """
import enum
class Colour(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = enum.auto()
    def shout(self): return self.name.upper()
class Level(enum.IntEnum):
    LOW = 1
class Way(str, enum.Enum):
    UP = "up"
class Right(enum.Flag):
    READ = 1
    WRITE = 2
class Planet(enum.Enum):
    EARTH = (1, 2)
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
both = Right.READ | Right.WRITE
members = {Colour.RED: [Level.LOW, Way.UP, Planet.EARTH]}
""", """
assert list(members) == [Colour.RED] and members[Colour.RED][0] is Level.LOW and Colour(1) is Colour.CRIMSON
assert [c.name for c in Colour] == ['RED', 'BLUE'] and Colour['BLUE'].shout() == 'BLUE'
assert Level.LOW + 1 == 2 and Way('up') is Way.UP and Way.UP.upper() == 'UP' and Planet.EARTH.radius == 2
assert both == Right.READ | Right.WRITE and Right.READ in both and both & Right.WRITE is Right.WRITE
""")


UNSAVABLE = """
import asyncio, contextvars, os, socket, sqlite3, subprocess, sys, tempfile, threading, weakref, mmap, queue
lock = threading.Lock(); rlock = threading.RLock(); event = threading.Event(); jobs = queue.Queue()
thread = threading.Thread(target=print); local = threading.local()
sock = socket.socket(); file = open(os.devnull); raw = open(os.devnull, "rb"); scratch = tempfile.NamedTemporaryFile()
gen = (i for i in [1]); mapped = mmap.mmap(-1, 100); database = sqlite3.connect(":memory:")
program = subprocess.Popen([sys.executable, "-c", ""]); program.wait()
async def work(): pass
coroutine = work(); coroutine.close()
loop = asyncio.new_event_loop()
variable = contextvars.ContextVar("v"); token = variable.set(1)
class Thing: pass
thing = Thing(); weak = weakref.ref(thing)
frame = sys._getframe()
"""
KINDS = ("lock rlock event jobs thread local sock file raw scratch gen mapped database program coroutine loop variable "
         "token weak frame").split()


def test_what_cannot_be_saved_is_named_with_the_reason(session):
    outline = session.save(UNSAVABLE)
    assert sorted(reasons(outline)) == sorted(KINDS)
    assert reasons(outline)["lock"] == "it is a thread lock" and reasons(outline)["gen"] == "it is a generator"
    assert reasons(outline)["jobs"].startswith("its attribute .") and reasons(outline)["sock"] == "it is a socket"
    loaded = session.load("assert thing.__class__ is Thing and not {'lock', 'gen'} & set(globals())")
    assert sorted(reasons(loaded)) == sorted(KINDS)


def test_one_that_cannot_be_saved_takes_no_other_along(session):
    outline = session.save("""
import threading
shared = [1]
good = {"shared": shared}
bad = {"shared": shared, "deep": [{"lock": threading.Lock()}]}
class Holder: pass
worse = Holder(); worse.shared = shared; worse.conn = open("/dev/null")
def closure(held):
    def f(): return held
    return f
worst = closure([shared, threading.Lock()])
""")
    assert reasons(outline) == {
        "bad": "its element ['deep'][0]['lock'] is a thread lock",
        "worse": "its attribute .conn is an open file",
        "worst": "its attribute .held[1] is a thread lock",
    }
    session.load("assert good['shared'] is shared and type(Holder()) is Holder and closure(1)() == 1")


def test_whatever_code_of_the_session_does_the_saver_goes_on(session):
    outline = session.save("""
shared = [1]
class Raises:
    def __reduce__(self): raise SystemExit(3)
class Interrupts:
    def __getstate__(self): raise KeyboardInterrupt("now")
class Endless:
    def __reduce__(self): return Endless, (Endless(),)
class Odd:
    def __reduce__(self): return "NOWHERE"
class Wrong:
    def __reduce_ex__(self, protocol): return 5
class Unprintable(Exception):
    def __str__(self): raise self
class Mute:
    def __reduce__(self): raise Unprintable()
class Lying:
    __class__ = property(lambda self: 1 / 0)
    def __getattr__(self, name): raise ZeroDivisionError
    def __eq__(self, other): raise ZeroDivisionError
    __hash__ = None
one, two, three, four, five, six = [shared, Raises()], Interrupts(), Endless(), Odd(), Wrong(), Mute()
seven = [shared, Lying()]
""")
    assert set("one two three four five six".split()) <= set(reasons(outline)) <= set("one two three four five six seven".split())
    assert "SystemExit: 3" in reasons(outline)["one"] and "KeyboardInterrupt: now" in reasons(outline)["two"]
    assert "nested too deeply" in reasons(outline)["three"] and "NOWHERE" in reasons(outline)["four"]
    session.load("assert shared == [1] and Raises.__name__ == 'Raises'")


def test_time_is_bounded(session):
    outline = session.save("""
from cob.bundle import saving
saving.SECONDS_MAX = 4
class Slow:
    def __reduce__(self):
        while True:
            try:
                while True: pass
            except Exception: pass
slow = Slow(); quick = [1]
""")
    assert list(reasons(outline)) == ["slow"] and "it took longer than" in reasons(outline)["slow"]


def test_deep_values(session):
    keep(session, """
deep = []
for _ in range(5000): deep = [deep]
class Node:
    def __init__(self, next): self.next = next
node = None
for _ in range(5000): node = Node(node)
""", """
depth = 0
while node: node = node.next; depth += 1
while deep: deep = deep[0]; depth += 1
assert depth == 10000
""")


def test_a_large_pickle_that_fails_leaves_no_blob_behind(session):
    outline = session.save("""
import threading
good = [str(number) for number in range(100)]
bad = [str(number) * 10 for number in range(400_000)] + [threading.Lock()]
""")
    assert list(reasons(outline)) == ["bad"]
    known = {blob for component in outline["components"] for blob in component["blobs"]}
    assert max(known) < len(session.blobs()) and sum(c["bytes"] for c in outline["components"]) < 100_000
    session.load("assert good[99] == '99' and 'bad' not in globals()")


def test_modules_are_references(session):
    outline = session.save("import json as j, os.path\nfrom collections import OrderedDict, deque\nd = [deque, j]")
    references = {c["names"][0]: c["reference"] for c in outline["components"] if c["codec"] == "reference"}
    assert references["j"] == "json" and references["os"] == "os"
    session.load("import json, collections\nassert j is json and d == [collections.deque, json] and OrderedDict is collections.OrderedDict")


def test_a_module_that_is_gone_hurts_nobody_else(session, tmp_path):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "helper.py").write_text("class Helper: pass\n")
    session.save(f"import sys; sys.path.insert(0, {str(folder)!r})\nimport helper as h\nvalue = [h.Helper()]; other = [1]")
    session.load("assert type(value[0]) is h.Helper and h.__file__.startswith(" + repr(str(folder)) + ")")
    shutil.rmtree(folder)
    loaded = session.load("assert other == [1]")
    assert sorted(reasons(loaded)) == ["h", "value"] and "ModuleNotFoundError" in reasons(loaded)["value"]
    assert [finding["kind"] for finding in loaded["findings"]] == ["path"]


def test_what_is_there_stays_unless_it_is_replaced(session):
    session.save("a = 1; b = [a]")
    session.load("""
from cob import bundle
from bundle_end import Reader
import pickle, sys, json
mine, a, In, _7 = [5], 0, ['cell'], 7
status, text = bundle.load(Reader(*pickle.load(open(sys.argv[2], 'rb'))), False)
assert status == 'value' and a == 1 and mine == [5] and In == ['cell'] and _7 == 7
assert 'mine' in json.loads(text)['kept'] and '_7' not in json.loads(text)['kept']
""")


def test_the_surroundings_come_back(session, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    code = f"""
import os, random, sys
os.chdir({str(folder)!r}); os.environ['COB_SECRET'] = 'not to be told'; random.seed(7); random.random(); sys.setrecursionlimit(4321)
live, out, here = os.environ, sys.stdout, globals()
nested = [globals()]
"""
    outline = session.save(code)
    assert "COB_SECRET" in outline["extra"]["environment"]
    assert b"not to be told" not in b"".join(session.blobs()) and "not to be told" not in str(outline)
    loaded = session.load(f"""
import os, random, sys
assert os.getcwd() == {str(folder)!r} and sys.getrecursionlimit() == 4321
expected = random.Random(7); expected.random()
assert random.random() == expected.random()
assert live is os.environ and out is sys.stdout and here is globals() and nested[0] is here
""")
    assert "COB_SECRET" in str(loaded["findings"])
    folder.rmdir()
    assert "folder" in [finding["kind"] for finding in session.load()["findings"]]


def test_another_python_is_refused_unless_forced(tmp_path):
    pythons = {name: path for name, path in target.pythons().items() if path}
    if len(pythons) < 2:
        pytest.skip("there is only one Python here")
    first, *_, last = sorted(pythons)
    session = Session(pythons[first], tmp_path)
    session.save("data = {'a': [1]}; also = [data]\ndef f(): return 1")
    declined = session.load(python=pythons[last])["declined"]
    assert "it was made with Python" in declined and "ABI" in declined
    loaded = session.load("assert also[0] is data", force=True, python=pythons[last])
    assert list(reasons(loaded)) == ["f"] and "another version of Python" in reasons(loaded)["f"]
    assert "runtime" in [finding["kind"] for finding in loaded["findings"]]


def test_another_version_of_a_package_is_refused_unless_forced(rich):
    outline = rich.save("import numpy\na = numpy.arange(5)")
    assert "numpy" in outline["runtime"]["packages"]
    changed = "import importlib.metadata as m; real = m.version; m.version = lambda name: '0.1' if name == 'numpy' else real(name)\n"
    plain, rich.prelude = rich.prelude, rich.prelude + changed
    (rich.file.parent / "sitecustomize.py").write_text(changed)
    declined = rich.load(PYTHONPATH=f"{rich.file.parent}:{rich.environment['PYTHONPATH']}")["declined"]
    rich.prelude = plain
    assert "numpy" in declined and "0.1" in declined
    assert rich.load("assert a.sum() == 10", force=True, PYTHONPATH=f"{rich.file.parent}:{rich.environment['PYTHONPATH']}")["restored"]


def test_arrays_share_what_they_shared(rich):
    outline = rich.save("""
import numpy as np
whole = np.arange(100_000.0); part = whole[10:5000:3]; back = whole[::-1]
fortran = np.asfortranarray(np.ones((300, 400))); turned = np.arange(24 * 8000).reshape(2, 12, 8000).transpose(2, 0, 1)
held = [1]; objects = np.array([held, "x", None], dtype=object); view = objects[::-1]
fixed = np.arange(3); fixed.flags.writeable = False
small = np.arange(1_000_000)[:3]
memory = bytearray(100_000); over = np.frombuffer(memory, np.uint8)
days = np.array(["2020-01-01"], dtype="M8[D]"); records = np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])
wide = np.broadcast_to(np.arange(3.0), (1_000_000, 3)); scalar = np.float32(2.5); empty = np.empty((0, 3)); zero = np.array(5.0)
matrix = np.matrix([[1, 2]])
""")
    assert not outline["missing"] and sum(component["bytes"] for component in outline["components"]) < 4_000_000
    rich.load("""
import numpy as np
whole[13] = -5
assert part[1] == -5 and back[-14] == -5 and whole.flags.owndata and whole.flags.writeable and part.base is not None
whole.resize(5, refcheck=False)
assert fortran.flags.f_contiguous and fortran.flags.owndata and fortran.sum() == 120_000
assert (turned == np.arange(24 * 8000).reshape(2, 12, 8000).transpose(2, 0, 1)).all()
objects[1] = 'y'
assert view[1] == 'y' and objects[0] is held
assert not fixed.flags.writeable and small.tolist() == [0, 1, 2] and small.base is None
memory[3] = 7
assert over[3] == 7 and str(days[0]) == '2020-01-01' and records.dtype.names == ('a', 'b')
assert wide.shape == (1_000_000, 3) and wide.strides[0] == 0 and type(scalar) is np.float32 and empty.shape == (0, 3)
assert zero == 5 and zero.shape == () and type(matrix) is np.matrix
""")


def test_mapped_arrays_are_missing(rich, tmp_path):
    outline = rich.save(f"import numpy\nm = numpy.memmap({str(tmp_path / 'm')!r}, mode='w+', shape=(10,)); v = numpy.asarray(m); c = m.copy() + 0")
    assert {"m", "v"} <= set(reasons(outline)) and "memory-mapped" in reasons(outline)["m"]


def test_frames(rich):
    keep(rich, """
import pandas as pd, numpy as np
frame = pd.DataFrame({"n": np.arange(50_000.0), "s": ["x"] * 50_000, "c": pd.Categorical(["a", "b"] * 25_000)})
column = frame["n"]; index = frame.index; lazy = frame.copy(deep=False); rows = frame.iloc[:10]
when = pd.Series(pd.date_range("2020", periods=3, tz="UTC")); both = {"frame": frame}
""", """
import pandas as pd
assert both["frame"] is frame and frame["n"].sum() == sum(range(50_000)) and list(frame["c"].cat.categories) == ["a", "b"]
lazy.iloc[0, 0] = 9.0
if pd.__version__ >= "3":
    assert frame.iloc[0, 0] == 0.0 and column.iloc[0] == 0.0
frame.iloc[1, 0] = 5.0
assert frame.iloc[1, 0] == 5.0 and rows.shape == (10, 3) and str(when.dt.tz) == "UTC"
""")


def test_what_did_not_change_is_the_same_bytes(rich):
    code = "import numpy\nlarge = numpy.arange(1_000_000); text = ['x'] * 100_000\nsmall = "
    rich.save(code + "1")
    before = set(rich.blobs())
    rich.save(code + "2")
    assert sum(len(blob) for blob in rich.blobs() if blob not in before) < 1000


@pytest.mark.parametrize("seed", range(4))
def test_random_sessions(session, seed):
    _random(session, range(seed * 4, seed * 4 + 4), False)


@pytest.mark.parametrize("seed", range(4))
def test_random_sessions_with_arrays(rich, seed):
    _random(rich, range(seed * 4, seed * 4 + 4), True)


def _random(session, seeds, arrays):
    for seed in seeds:
        session.save(f"import bundle_values\nbundle_values.build(globals(), {seed}, {arrays})\ndel bundle_values")
        session.load(f"import bundle_values\nbundle_values.check(outcome, {seed}, {arrays})")
