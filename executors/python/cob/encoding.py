"""JSON for what user code hands to the client; the json module is imported here and nowhere earlier."""

import json
import math

loads = json.loads


def dumps(value):
    """JSON that every client can read: no NaN, and dates, bytes and numpy numbers by their meaning."""
    try:
        return json.dumps(value, default=_default, ensure_ascii=False, allow_nan=False).encode().decode()
    except (ValueError, TypeError, UnicodeEncodeError):
        return json.dumps(_clean(value, 0), ensure_ascii=True, allow_nan=False)


def strict(value):
    """JSON of a value that is JSON; for any other a TypeError that says what is in the way."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise TypeError(f"not a JSON value: {error}") from None
    return text


def _default(value):
    import datetime
    import numbers

    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        import base64

        return base64.b64encode(value).decode()
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, (set, frozenset, range)) or hasattr(value, "__next__"):
        return list(value)
    if hasattr(value, "tolist"):  # numpy arrays, pandas values
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be sent to the client as JSON")


def _clean(value, depth):
    if depth > 200:
        raise ValueError("a value that contains itself cannot be sent to the client")
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _clean(part, depth + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(part, depth + 1) for part in value]
    return _clean(_default(value), depth + 1)
