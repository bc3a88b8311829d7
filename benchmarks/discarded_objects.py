"""What the discarding sink remembers: sizes, ETags and checksums of objects and parts, and small documents whole."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from xml.sax.saxutils import escape

from awscrt import checksums

from s3_answers import Answer, Body, Request, element, error, is_checksum, metadata, no_upload, place, with_type, xml

CRC64NVME = "x-amz-checksum-crc64nvme"

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PART = re.compile(rb"<Part>(.*?)</Part>", re.DOTALL)
_NUMBER = re.compile(rb"<PartNumber>(\d+)</PartNumber>")
_ETAG = re.compile(rb"<ETag>(?:&quot;|&#34;|\")?([0-9a-f]{32})(?:&quot;|&#34;|\")?</ETag>")


@dataclass(frozen=True)
class StoredPart:
    """A part, or an object."""

    size: int
    etag: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass
class OpenUpload:
    """A multipart upload."""

    path: str
    metadata: Mapping[str, str]
    part_size: int = 0
    parts: dict[int, StoredPart] = field(default_factory=dict)


class DiscardedObjects:
    """A bucket of any name. Answers as Amazon's S3 API reference documents for the operations it knows."""

    def __init__(self) -> None:
        self._objects: dict[str, StoredPart] = {}
        self._uploads: dict[str, OpenUpload] = {}
        self._tagged: dict[str, bytes] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self.stats = {"requests": 0, "received": 0, "hashed": 0, "documents": 0}
        """Requests, bytes of recordings, bodies of recordings that the sink hashed itself, and other objects."""

    def answer(self, request: Request, body: Body) -> Answer:
        """Do what a request asks."""
        with self._lock:
            self.stats["requests"] += 1
            self.stats["hashed"] += body.hashed
            if body.kept is None:
                self.stats["received"] += body.length
            if body.wrong:
                return error(400, "BadDigest", body.wrong)
            return self._answer(request, body)

    def _answer(self, request: Request, body: Body) -> Answer:
        asked = request.query.keys() & {"uploads", "uploadId", "partNumber", "location", "tagging", "list-type"}
        known: dict[tuple[str, str], Callable[[Request, Body], Answer]] = {
            ("POST", "uploads"): self._create,
            ("GET", "uploads"): self._list_uploads,
            ("PUT", "partNumber uploadId"): self._put_part,
            ("GET", "uploadId"): self._list_parts,
            ("POST", "uploadId"): self._complete,
            ("DELETE", "uploadId"): self._abort,
            ("GET", "tagging"): self._tags,
            ("PUT", "tagging"): self._tags,
            ("GET", "list-type"): self._list,
            ("GET", "location"): lambda *_: xml("<LocationConstraint/>"),
            ("PUT", ""): self._put,
            ("GET", ""): self._get,
            ("HEAD", ""): self._get,
            ("DELETE", ""): self._delete,
        }
        answer = known.get((request.method, " ".join(sorted(asked))))
        if answer is None:
            return error(501, "NotImplemented", f"{request.method} {sorted(request.query)}")
        return answer(request, body)

    def announce_part(self, request: Request, length: int) -> None:
        """Take note of a part that is about to come: the longest tells the upload's part size."""
        with self._lock:
            if upload := self._uploads.get(request.query.get("uploadId", "")):
                upload.part_size = max(upload.part_size, length)

    def part_start(self, request: Request, length: int, size: int) -> int:
        """Where in a recording of this size the bytes of a request begin: only the last part is shorter."""
        with self._lock:
            upload = self._uploads.get(request.query.get("uploadId", ""))
            start = (int(request.query.get("partNumber", 1)) - 1) * length
            is_last = (upload and length < upload.part_size) or start + length > size
        return max(0, size - length) if is_last else start

    def _tags(self, request: Request, body: Body) -> Answer:
        if request.method == "PUT":
            self._tagged[request.path] = body.kept or b""
            return Answer()
        return Answer(200, self._tagged.get(request.path, b"<Tagging><TagSet/></Tagging>"))

    def _delete(self, request: Request, _: Body) -> Answer:
        self._objects.pop(request.path, None)
        return Answer(204)

    def _abort(self, request: Request, _: Body) -> Answer:
        return Answer(204) if self._uploads.pop(request.query["uploadId"], None) else no_upload()

    def _put(self, request: Request, body: Body) -> Answer:
        if request.path.count("/") < 2 or request.path.endswith("/"):
            return Answer()  # a bucket, and every one is there
        if refusal := self._refusal(request):
            return refusal
        self.stats["documents"] += body.kept is not None and request.path not in self._objects
        etag = body.md5.hex()
        headers = {**metadata(request), **with_type(body.checksums, "FULL_OBJECT")}
        self._objects[request.path] = StoredPart(body.length, etag, headers, body.kept)
        return Answer(headers={"ETag": f'"{etag}"', **body.checksums})

    def _create(self, request: Request, _: Body) -> Answer:
        upload_id = f"upload-{next(self._ids)}"
        self._uploads[upload_id] = OpenUpload(request.path, metadata(request))
        asked = ("x-amz-checksum-algorithm", "x-amz-checksum-type")
        inside = f"<UploadId>{upload_id}</UploadId>"
        answer = xml(f"<InitiateMultipartUploadResult>{place(request.path)}{inside}</InitiateMultipartUploadResult>")
        return Answer(200, answer.body, {name: request.headers[name] for name in asked if name in request.headers})

    def _put_part(self, request: Request, body: Body) -> Answer:
        upload = self._uploads.get(request.query["uploadId"])
        if upload is None:
            return no_upload()
        etag = body.md5.hex()
        upload.parts[int(request.query["partNumber"])] = StoredPart(body.length, etag, body.checksums)
        return Answer(headers={"ETag": f'"{etag}"', **body.checksums})

    def _list_parts(self, request: Request, _: Body) -> Answer:
        upload = self._uploads.get(request.query["uploadId"])
        if upload is None:
            return no_upload()
        after = int(request.query.get("part-number-marker") or 0)
        numbers = sorted(number for number in upload.parts if number > after)
        shown = numbers[: int(request.query.get("max-parts") or 1000)]
        parts = "".join(_part_xml(number, upload.parts[number]) for number in shown)
        more = "true" if len(shown) < len(numbers) else "false"
        marker = f"<NextPartNumberMarker>{shown[-1] if shown else 0}</NextPartNumberMarker>"
        return xml(
            f"<ListPartsResult>{place(upload.path)}<UploadId>{request.query['uploadId']}</UploadId>"
            f"{marker}<IsTruncated>{more}</IsTruncated>{parts}</ListPartsResult>"
        )

    def _complete(self, request: Request, body: Body) -> Answer:
        upload_id = request.query["uploadId"]
        upload = self._uploads.get(upload_id)
        if upload is None:
            return no_upload()
        if refusal := self._refusal(request):
            return refusal
        chosen = []
        for part in _PART.findall(body.kept or b""):
            number, etag = _NUMBER.search(part), _ETAG.search(part)
            stored = upload.parts.get(int(number[1])) if number else None
            if stored is None or etag is None or etag[1].decode() != stored.etag:
                return error(400, "InvalidPart", "One or more of the specified parts could not be found.")
            chosen.append(stored)
        size = sum(part.size for part in chosen)
        if not chosen or int(request.headers.get("x-amz-mp-object-size", size)) != size:
            return error(400, "InvalidRequest", f"the parts have {size} bytes")
        digests = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in chosen), usedforsecurity=False)
        etag = f"{digests.hexdigest()}-{len(chosen)}"
        sent = {name: value for name, value in request.headers.items() if is_checksum(name)}
        whole = _crc64nvme_of(chosen)
        if sent.get(CRC64NVME, whole) != whole:
            return error(400, "BadDigest", "the CRC64NVME is not that of the parts")
        if whole:
            sent[CRC64NVME] = whole
        self._objects[upload.path] = StoredPart(size, etag, {**upload.metadata, **with_type(sent, "FULL_OBJECT")})
        del self._uploads[upload_id]
        fields = "".join(f"<{element(name)}>{value}</{element(name)}>" for name, value in sent.items())
        return xml(
            f"<CompleteMultipartUploadResult>{place(upload.path)}<ETag>&quot;{etag}&quot;</ETag>"
            f"{fields}</CompleteMultipartUploadResult>"
        )

    def _list_uploads(self, request: Request, _: Body) -> Answer:
        bucket, prefix = request.path.strip("/").partition("/")[0], request.query.get("prefix", "")
        listed = "".join(
            f"<Upload><Key>{escape(upload.path.split('/', 2)[2])}</Key><UploadId>{upload_id}</UploadId></Upload>"
            for upload_id, upload in self._uploads.items()
            if upload.path.startswith(f"/{bucket}/{prefix}")
        )
        return xml(
            f"<ListMultipartUploadsResult><Bucket>{bucket}</Bucket><IsTruncated>false</IsTruncated>{listed}"
            "</ListMultipartUploadsResult>"
        )

    def _list(self, request: Request, _: Body) -> Answer:
        bucket = request.path.strip("/")
        prefix = f"/{bucket}/{request.query.get('prefix', '')}"
        after = request.query.get("continuation-token") or request.query.get("start-after") or ""
        paths = sorted(path for path in self._objects if path.startswith(prefix) and path > f"/{bucket}/{after}")
        shown = paths[: int(request.query.get("max-keys") or 1000)]
        items = "".join(_listed_xml(path.split("/", 2)[2], self._objects[path]) for path in shown)
        more = ""
        if len(shown) < len(paths):
            more = f"<NextContinuationToken>{escape(shown[-1].split('/', 2)[2])}</NextContinuationToken>"
        truncated = "true" if more else "false"
        return xml(f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{items}</ListBucketResult>")

    def _get(self, request: Request, _: Body) -> Answer:
        if request.path.strip("/").count("/") < 1 and request.method == "HEAD":
            return Answer()
        stored = self._objects.get(request.path)
        if stored is None:
            return error(404, "NoSuchKey", "The specified key does not exist.")
        headers = {
            "ETag": f'"{stored.etag}"',
            "Last-Modified": formatdate(usegmt=True),
            "Accept-Ranges": "bytes",
            **stored.headers,
        }
        if request.method == "HEAD":
            return Answer(200, b"", {**headers, "Content-Length": str(stored.size)})
        if stored.body is None:
            return error(501, "NotImplemented", "its bytes were discarded")
        span = _RANGE.fullmatch(request.headers.get("range", ""))
        return _part_of(stored.body, span, headers) if span and stored.body else Answer(200, stored.body, headers)

    def _refusal(self, request: Request) -> Answer | None:
        if request.headers.get("if-none-match") == "*" and request.path in self._objects:
            return error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
        return None


def _part_xml(number: int, part: StoredPart) -> str:
    fields = {"PartNumber": number, "ETag": f"&quot;{part.etag}&quot;", "Size": part.size}
    fields |= {element(name): value for name, value in part.headers.items()}
    return f"<Part>{''.join(f'<{name}>{value}</{name}>' for name, value in fields.items())}</Part>"


def _crc64nvme_of(parts: Sequence[StoredPart]) -> str:
    """The CRC64NVME of the whole by those of its parts, base64; empty where a part came without one."""
    whole = 0
    for part in parts:
        if CRC64NVME not in part.headers:
            return ""
        own = int.from_bytes(base64.b64decode(part.headers[CRC64NVME]), "big")
        whole = checksums.combine_crc64nvme(whole, own, part.size)
    return base64.b64encode(whole.to_bytes(8, "big")).decode()


def _part_of(body: bytes, span: re.Match[str], headers: Mapping[str, str]) -> Answer:
    first, last = int(span[1]), min(int(span[2] or len(body)), len(body) - 1)
    if first > last:
        return error(416, "InvalidRange", "The requested range is not satisfiable.")
    return Answer(206, body[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(body)}"})


def _listed_xml(key: str, stored: StoredPart) -> str:
    return (
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-20T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{stored.size}</Size></Contents>"
    )
