"""What each fate and each fault may make of a file: the oracle's own knowledge, written down without the core's.

An outcome and a reason that nothing here explains is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from livekit_backup.models.outcome import Outcome

Explanation = tuple[Outcome, str]

_FAILED = Outcome.FAILED
_EXPIRED: Explanation = (Outcome.EXPIRED, r"link (has )?expired|Request has expired")
_SILENT: Explanation = (_FAILED, r"ended without an outcome")
"""A file's tasks could not even write down why, or were never begun."""
_GONE: Explanation = (_FAILED, r"upload was aborted|was dropped|download has left nothing")
_CONFLICT: Explanation = (_FAILED, r"holds other content")

FATES: dict[str, list[Explanation]] = {
    "fine": [],
    "gone": [(Outcome.MISSING, r"nothing is stored there: .* answered 404")],
    "dead before": [_EXPIRED],
    "dies": [_EXPIRED],
    "dies, and there is a fresh link": [_EXPIRED],
    "wrong bytes": [(Outcome.CORRUPT, r"the bytes have ETag .* LiveKit's storage says")],
    "wrong size": [(Outcome.CORRUPT, r"the recording has \d+ bytes, LiveKit's event says \d+")],
    "redirects": [(Outcome.REFUSED, r"redirects are not followed")],
    "elsewhere": [(Outcome.REFUSED, r"is not in allowed_hosts")],
    "denied": [(_FAILED, r"access is denied before the link's time is over")],
    "down": [(_FAILED, r"answered 503")],
    "a page": [(_FAILED, r"a web page instead of the recording")],
    "encoded": [(_FAILED, r"an encoding that was not asked for")],
    "no length": [(_FAILED, r"without the length that it must have")],
}

STYLES: dict[str, list[Explanation]] = {
    # Not without a break, but of which kind does not matter.
    "nothing": [(_FAILED, r"names no version, so its bytes can only be read in one go")],
}

MANIFESTS: dict[str, list[Explanation]] = {
    "there": [],
    "absent": [(Outcome.UNRESOLVED, r"no manifest and no location")],
    "gone": [(Outcome.UNRESOLVED, r"without its manifest .* answered 404")],
    "dead": [_EXPIRED],
    "not a manifest": [(Outcome.UNRESOLVED, r"is no egress manifest")],
    "another's": [(Outcome.UNRESOLVED, r"belongs to another egress")],
}

_UNANSWERED = [(_FAILED, r"did not answer")]
_BROKEN = [(_FAILED, r"broke off|ended \d+ bytes early|too slow to end")]
_CHANGED = [
    (
        _FAILED,
        (
            r"changed while it was read|ignored the range|which were not asked for|which range it sent|"
            r"has \d+ bytes now|are not the source's"
        ),
    )
]

SOURCE: dict[str, list[Explanation]] = {
    "source: connection refused": _UNANSWERED,
    "source: no such name": _UNANSWERED,
    "source: connecting takes too long": _UNANSWERED,
    "source: TLS fails": _UNANSWERED,
    "source: reset in the middle": _BROKEN,
    "source: stalls": _BROKEN,
    "source: drips": _BROKEN,
    "source: cut short": _BROKEN,
    "source: cut short without a length": [(_FAILED, r"without the length")],
    "source: more bytes than announced": [],
    "source: wrong bytes": [(Outcome.CORRUPT, r"the bytes have ETag"), *_CHANGED],
    "source: another ETag": [*_CHANGED, (Outcome.CORRUPT, r"the bytes have ETag")],
    "source: 200 instead of 206": _CHANGED,
    "source: a range that was not asked for": _CHANGED,
    "source: no word of which range": _CHANGED,
    "source: an encoding that nobody asked for": [(_FAILED, r"an encoding that was not asked for")],
    "source: a page with status 200": [(_FAILED, r"a web page instead of the recording")],
    "source: 403 expired": [_EXPIRED],
    "source: the link dies": [_EXPIRED],
    "source: 403 denied": [(_FAILED, r"access is denied before")],
    "source: 404": [(Outcome.MISSING, r"nothing is stored there")],
    "source: 412": [*_CHANGED, (_FAILED, r"answered 412")],
    "source: 416": [*_CHANGED, (_FAILED, r"answered 416")],
    "source: 429": [(_FAILED, r"answered 429")],
    "source: 429 for an hour": [(_FAILED, r"answered 429")],
    "source: 500": [(_FAILED, r"answered 500")],
    "source: 503": [(_FAILED, r"answered 503")],
    "source: redirect": [(Outcome.REFUSED, r"redirects are not followed")],
}

MANIFEST_FAULTS: dict[str, list[Explanation]] = {
    "manifest: connection refused": _UNANSWERED,
    "manifest: time-out": _UNANSWERED,
    "manifest: reset": _UNANSWERED,
    "manifest: cut short": [(_FAILED, r"broke off")],
    "manifest: 503": [(_FAILED, r"answered 503")],
    "manifest: 429": [(_FAILED, r"answered 429")],
    "manifest: 404": [(Outcome.UNRESOLVED, r"answered 404")],
    "manifest: 403 denied": [(Outcome.UNRESOLVED, r"access is denied")],
    "manifest: a page with status 200": [(_FAILED, r"a web page")],
    "manifest: redirect": [(Outcome.REFUSED, r"redirects are not followed")],
}

WAREHOUSE: dict[str, list[Explanation]] = {
    "warehouse: 500": [(_FAILED, r"answered InternalError"), _SILENT],
    "warehouse: 503 SlowDown": [(_FAILED, r"answered SlowDown"), _SILENT],
    "warehouse: access denied": [(_FAILED, r"answered AccessDenied"), _SILENT],
    "warehouse: access denied for a while": [(_FAILED, r"answered AccessDenied"), _SILENT],
    "warehouse: killed and started again": [(_FAILED, r"the store did not answer"), _SILENT],
    "warehouse: quota exceeded": [(_FAILED, r"answered QuotaExceeded"), _SILENT],
    "warehouse: disk full": [(_FAILED, r"answered 507"), _SILENT],
    "warehouse: the answer to a change is lost": [(_FAILED, r"the answer to \w+ is lost"), _SILENT, _GONE],
    "warehouse: complete answers 200 with an error": [(_FAILED, r"complete_upload answered InternalError")],
    "warehouse: complete answers nothing after it succeeded": [(_FAILED, r"the answer to complete_upload is lost")],
    "warehouse: complete is sent twice by the client": [],
    "warehouse: another's object appears at the key (412)": [_CONFLICT],
    "warehouse: a PUT is sent twice by the client": [],
    "warehouse: a part is lost after its 200": [
        (_FAILED, r"the warehouse holds \d+ bytes in \d+ parts of \d+ bytes in \d+ sent to it"),
    ],
    "warehouse: a part arrives altered": [
        (_FAILED, r"answered BadDigest|the warehouse holds other parts|are not the source's|reads back with another"),
        (Outcome.CORRUPT, r"the bytes have ETag|nothing was left there"),
        # By a try that died before it could say that what it had landed was wrong, and removed.
        _GONE,
    ],
    "warehouse: a listing of parts lags": [
        (_FAILED, r"the warehouse holds \d+ bytes in \d+ parts of \d+ bytes in \d+ sent to it")
    ],
    "warehouse: a lifecycle rule aborts the upload": [_GONE],
    "warehouse: an object shows late": [
        (_FAILED, r"is not there yet after it was completed|is not there as it was|is gone while it is read back"),
        _GONE,
        (Outcome.MISSING, r"nothing is stored there: s3://own/"),
    ],
    "warehouse: a body breaks off": [(_FAILED, r"broke off")],
}

TASKS: dict[str, list[Explanation]] = {
    "task: killed": [_SILENT],
    "task: an earlier try lives on as a zombie": [_GONE],
    "task: most links die before the next try": [_EXPIRED],
}
BESIDE = [_GONE, _SILENT]
"""What a second run over the same window may do to a file of the first: it drops what the other had open."""

EVERYWHERE = {**WAREHOUSE, **TASKS}


def is_explained(outcome: Outcome, reason: str, by: Iterable[Explanation]) -> bool:
    """Whether one of the explanations says this."""
    return any(outcome is of and re.search(pattern, reason) for of, pattern in by)
