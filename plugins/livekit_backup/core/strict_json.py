"""JSON from strangers: what is ambiguous, unbounded or no JSON at all is refused with a reason."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import accumulate
from typing import Any

from livekit_backup.core.wording import quoted

MAX_DEPTH = 32
"""LiveKit's deepest event nests 7 levels; a decoder that calls itself dies at about 1000."""
MAX_VALUES = 200_000
"""LiveKit's largest events have some hundreds. A value takes up to 600 bytes as a model, where two bytes wrote it."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_STEP = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_BOM = b"\xef\xbb\xbf"


class RefusedJsonError(ValueError):
    """These bytes are not taken for a document; the text says why, and never shows a value."""


def parse_json(raw: bytes) -> Any:
    """Return the value of one document in UTF-8. :raises RefusedJsonError: always that, whatever is wrong."""
    if _may_be_deep(raw) and _may_be_deep(_STRING.sub(b"", raw)):
        raise RefusedJsonError(f"nested too deeply: over {MAX_DEPTH} levels")
    if sum(map(raw.count, (b"{", b"[", b","))) > MAX_VALUES:
        raise RefusedJsonError(f"too much in it: over {MAX_VALUES} values")
    try:
        return _DECODER.decode(raw.removeprefix(_BOM).decode())
    except RefusedJsonError:
        raise
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
    except ValueError:
        # Python's own limit on the digits of an integer.
        reason = "not JSON: a number of thousands of digits"
    raise RefusedJsonError(reason)


def _may_be_deep(raw: bytes) -> bool:
    """Whether the brackets nest too deeply, those in strings counted too."""
    brackets = raw.translate(None, _NOT_BRACKETS)
    if len(brackets) <= MAX_DEPTH:
        return False
    return any(depth > MAX_DEPTH for depth in accumulate(map(_STEP.__getitem__, brackets)))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise RefusedJsonError(f"ambiguous: the key {quoted(twice, 80)} stands twice in one object")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise RefusedJsonError("not JSON: a number that no float can hold")
    return number


def _no_constant(name: str) -> float:
    raise RefusedJsonError(f"not JSON: {name}")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
