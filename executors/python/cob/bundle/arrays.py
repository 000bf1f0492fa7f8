"""Arrays: their bytes go as they are, and what shared memory shares it again.

A view is saved as a view if somebody else can see its memory; otherwise it is
saved by itself, so that ten rows of a large table do not drag the table along.
"""

import array
import mmap
import sys

from cob.bundle import blame, rebuild

APART_BYTES_MIN = 1 << 16  # smaller ones are not worth a blob
MEMORY = frozenset((bytes, bytearray, array.array))


def is_array(kind):
    """An array of numpy itself; a subclass may be anything."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind is getattr(numpy, "ndarray", None)


def owner_of(value):
    """Whose memory it is: another array, bytes, or whatever it was borrowed from; None: its own."""
    numpy = sys.modules["numpy"]
    base = value.base
    while base is not None:
        if type(base) is memoryview:
            further = base.obj
        elif isinstance(base, numpy.ndarray):
            further = base.base
        else:
            break
        if further is None:
            break
        base = further
    return base


def parts(value):
    """What an array holds: who owns its memory, and objects."""
    owner = owner_of(value)
    found = [] if owner is None else [owner]
    if value.dtype.hasobject and value.dtype.names is None:
        found.extend(value.reshape(-1).tolist())
    return found


def reducer_of(kind):
    if is_array(kind):
        return _array
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, getattr(numpy, "memmap", ())):
        return _mapped
    blocks = sys.modules.get("pandas._libs.internals")
    if blocks is not None and issubclass(kind, blocks.Block):
        return _block
    return None


def _mapped(pickler, value):
    raise blame.Unsavable(value, "a memory-mapped file")


def _block(pickler, value):
    """Frames that share memory until one of them is written to: pickle forgets that they must be parted by then."""
    function, arguments, *rest = value.__reduce__()
    if _copies_on_write() and value.refs.has_reference():
        arguments = (arguments[0].copy(), *arguments[1:])
    return (function, arguments, *rest)


def _copies_on_write():
    pandas = sys.modules.get("pandas")
    try:
        if int(pandas.__version__.partition(".")[0]) >= 3:
            return True
        return pandas._config.using_copy_on_write()
    except Exception:  # none that has it
        return False


def _array(pickler, value):
    owner = owner_of(value)
    if type(owner) is mmap.mmap:
        raise blame.Unsavable(value, "a view of memory that is mapped")
    if owner is not None and _is_shared(pickler, value, owner):
        return _view(value, owner)
    dtype = value.dtype
    if dtype.hasobject or dtype.kind not in "biufcmMSUV":
        return NotImplemented
    order, dense = "C", value
    if value.flags.f_contiguous and not value.flags.c_contiguous:
        order = "F"
    elif not value.flags.c_contiguous:
        dense = value.copy("C")
    numpy = sys.modules["numpy"]
    data = rebuild._bytes(numpy, dense, order)
    layout = dtype, value.shape, order, value.flags.writeable
    if data.nbytes < APART_BYTES_MIN:
        return rebuild.small_array, (*layout, data.tobytes())
    pickler.apart(memoryview(data))
    return rebuild.array, layout


def _is_shared(pickler, value, owner):
    """Whether it has to stay a view: somebody else holds the memory, or it would be larger on its own."""
    numpy = sys.modules["numpy"]
    if type(owner) is numpy.ndarray:
        try:
            rebuild.flatten(owner)
        except ValueError:
            return False
        size = owner.nbytes
    elif type(owner) in MEMORY:
        size = len(memoryview(owner).cast("B"))
    else:
        return False
    if value.dtype.hasobject and (type(owner) is not numpy.ndarray or owner.dtype != value.dtype):
        return False
    return pickler.saving.reached.get(id(owner), 0) > 1 or value.nbytes > size


def _view(value, owner):
    numpy = sys.modules["numpy"]
    start = numpy.frombuffer(owner, numpy.uint8) if not isinstance(owner, numpy.ndarray) else rebuild.flatten(owner)
    offset = _address(value) - _address(start)
    return rebuild.view, (owner, value.dtype, value.shape, value.strides, offset, value.flags.writeable)


def _address(value):
    return value.__array_interface__["data"][0]
