"""Seals reports: each one's digest goes into a chain, one chain a DAG, whose links are never replaced.

Two reports at once cannot both be the next link, since a link is stored only where none is: the later one takes the
number behind. A report that runs again adds a link; of a run's links the newest counts.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import ValidationError

from livekit_backup.core.storage import ObjectStore, join_uri
from livekit_backup.errors import StorageUnavailableError
from livekit_backup.models.seal import Seal
from livekit_backup.models.statement import Statement, StatementLine

CHAIN_FOLDER = "chain"
"""Under the ledger's prefix; a folder a DAG in it."""
SEALED = ("report.json", "report.txt", "intake.json", "plan.json", "comparison.json")
"""Documents of a run that a seal covers, as far as the run has them."""
MOST_RIVALS = 50
"""Reports of one DAG that end in the same instant, at most; Airflow runs 16 of a DAG unless told otherwise."""
_LAST = 10**10 - 1
"""Keys count down from here, so that a listing begins with the newest seal."""

log = logging.getLogger(__name__)


def digest_of(body: bytes) -> str:
    """Return the SHA-256 of a document's bytes, hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def seal_uri(folder_uri: str, number: int) -> str:
    """Return where a seal is: in a DAG's folder, the newest first."""
    return join_uri(folder_uri, f"{_LAST - number:010d}-{number}.json")


def sealed_copy(digest: str) -> str:
    """Return the name of the copy of a report that was sealed with this digest; nothing ever replaces it."""
    return f"report-{digest[:16]}.json"


def append_seal(
    store: ObjectStore, folder_uri: str, *, dag_id: str, run_id: str, documents: Mapping[str, str]
) -> tuple[Seal, str]:
    """Add the next link to a DAG's chain, and return it with its digest.

    :param folder_uri: of the DAG's chain.
    :param documents: digest of each document by its name.
    :raises StorageUnavailableError: others were always faster; a next try seals it.
    """
    number, previous = _newest(store, folder_uri)
    for _ in range(MOST_RIVALS):
        number += 1
        seal = Seal(
            number=number,
            dag_id=dag_id,
            run_id=run_id,
            sealed_at=datetime.now(UTC),
            previous=previous,
            documents=documents,
        )
        uri = seal_uri(folder_uri, number)
        body = f"{seal.model_dump_json()}\n".encode()
        store.put_new(uri, body, content_type="application/json", metadata={})
        # What is there decides, not the answer: a request that was sent twice may find what it has stored itself, and
        # a store without conditions may have let both of two rivals win.
        present = store.get(uri)
        if present == body:
            return seal, digest_of(body)
        if present is None:
            break
        previous = digest_of(present)
    raise StorageUnavailableError(f"{folder_uri}: the report could not be sealed, since others always were before it")


def _newest(store: ObjectStore, folder_uri: str) -> tuple[int, str]:
    """Return number and digest of the newest seal; 0 and nothing before the first."""
    for listed in store.list_objects(f"{folder_uri}/", page=1):
        body = store.get(listed.uri)
        if body is not None:
            return number_of(listed.uri), digest_of(body)
    return 0, ""


def number_of(uri: str) -> int:
    """Return a seal's number by where it is; 0 for what is no seal's place."""
    name = uri.rpartition("/")[2]
    number = name.rpartition("-")[2].removesuffix(".json")
    is_seal = number.isascii() and number.isdecimal() and len(number) <= 10
    return int(number) if is_seal and seal_uri("", int(number)).rpartition("/")[2] == name else 0


def read_seal(body: bytes) -> Seal | None:
    """Return a seal, or None where the bytes are none."""
    try:
        return Seal.model_validate_json(body)
    except ValidationError:
        return None


def linked(statement: Statement) -> Statement:
    """Return a statement whose lines are chained: each one's digest is of its content and the digest before it."""
    previous, lines = "", []
    for line in statement.lines:
        previous = _chained(previous, line)
        lines.append(line.model_copy(update={"chain_sha256": previous}))
    return statement.model_copy(update={"lines": tuple(lines)})


def broken_lines(statement: Statement) -> tuple[int, ...]:
    """Return the places, from 0, of the lines that are not as they were chained to the line before them."""
    previous, broken = "", []
    for place, line in enumerate(statement.lines):
        if line.chain_sha256 != _chained(previous, line):
            broken.append(place)
        previous = line.chain_sha256
    return tuple(broken)


def _chained(previous: str, line: StatementLine) -> str:
    content = line.model_copy(update={"chain_sha256": ""}).model_dump_json()
    return digest_of(f"{previous}\n{content}".encode())
