"""The webhook receiver: what it accepts and stores, and the code with which it refuses everything else."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from datetime import timedelta

import pytest

from livekit_backup.core.webhook_tokens import verify_stored
from livekit_backup.core.windows import inbox_prefixes
from livekit_backup.errors import AccessDeniedError, ConfigurationError, StorageUnavailableError
from livekit_backup.models.stored_webhook import EventSource, StoredWebhook
from livekit_backup.models.window import Window
from livekit_backup.receiver import signing_keys
from livekit_backup.testing.webhook_sender import CONTENT_TYPE, WAITS, sign_webhook
from unit.receiver_bed import HOUR, INBOX, NOW, SECRET, MemoryInbox, ReceiverBed, event

pytestmark = pytest.mark.asyncio

OTHER = "some-other-secret-of-more-than-32-bytes"
ROOM = event("room_started").replace(b'"egressInfo"', b'"other"')


class BrokenStore(MemoryInbox):
    """Raises what it is told, once told."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error

    def put_new(self, *args, **kwargs):
        if self.error:
            raise self.error
        return super().put_new(*args, **kwargs)


class SlowStore(MemoryInbox):
    """Stores nothing before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)

    def put_new(self, *args, **kwargs):
        self.begun.release()
        assert self.go.wait(10)
        return super().put_new(*args, **kwargs)


async def test_what_is_answered_with_200_is_in_the_inbox_byte_for_byte():
    bed = ReceiverBed()
    body = event(room={"name": "Café ☕"}, nan=float("nan"))
    answer = await bed.deliver(body)
    assert (answer.status, answer.body) == (200, b"")
    key = f"{HOUR}EG_1-egress_ended-{hashlib.sha256(body).hexdigest()}.json"
    assert list(bed.store.objects) == [key]
    stored = StoredWebhook.model_validate_json(bed.store.objects[key])
    assert stored.body.encode() == body
    assert (stored.source, stored.received_at, stored.signed_with) == (EventSource.WEBHOOK, NOW, "APIone")
    assert verify_stored(stored, {"APIone": SECRET}) == "APIone"
    assert bed.metric("webhooks_accepted_total") == bed.metric("webhooks_stored_total") == 1
    assert bed.metric("webhook_seconds_count") == 1


async def test_a_repeated_delivery_stores_the_same_object_also_after_the_hour_has_turned():
    bed = ReceiverBed()
    body, token = event(), bed.token(event())
    for seconds in (0, 1, 40, 90):
        bed.now = NOW + timedelta(seconds=seconds)
        answer = await bed.ask(body, {"content-type": CONTENT_TYPE, "authorization": token})
        assert answer.status == 200
    assert len(bed.store.objects) == 1
    (kept,) = bed.store.objects.values()
    assert StoredWebhook.model_validate_json(kept).received_at == NOW, "the first evidence stays"
    assert bed.metric("webhooks_already_stored_total") == 3


async def test_an_event_is_where_its_hours_run_looks_whatever_the_layout():
    layout = "%Y/%m/%d/%H/%M/"
    bed = ReceiverBed(settings={"inbox_layout": layout})
    assert (await bed.deliver(BODY)).status == 200
    window = Window(start=NOW.replace(minute=0, second=0), end=NOW.replace(minute=0, second=0) + timedelta(hours=1))
    [prefix] = inbox_prefixes(INBOX, layout, window)
    assert next(iter(bed.store.objects)).startswith(prefix)


@pytest.mark.parametrize("path", ["/webhook", "/webhook/", "/livekit-backup/webhook"])
async def test_it_answers_at_each_address(path):
    bed = ReceiverBed()
    body = event()
    headers = {"content-type": "application/json; charset=utf-8", "authorization": f"Bearer {bed.token(body)}"}
    assert (await bed.ask(body, headers, path=path)).status == 200
    mounted = await bed.ask(body, headers, path="/livekit-backup/webhook", root_path="/livekit-backup")
    assert mounted.status == 200, "as Airflow mounts it"
    assert len(bed.store.objects) == 1


async def test_events_of_no_egress_are_accepted_and_left_out_unless_all_are_wanted():
    bed = ReceiverBed()
    assert (await bed.deliver(ROOM)).status == 200
    assert not bed.store.objects
    assert bed.metric("webhooks_ignored_total") == 1
    bed = ReceiverBed(settings={"webhook_events": "all"})
    assert (await bed.deliver(ROOM)).status == 200
    assert len(bed.store.objects) == 1


async def test_a_body_in_pieces_is_one_body():
    bed = ReceiverBed()
    body = event()
    headers = {"content-type": CONTENT_TYPE, "authorization": bed.token(body)}
    assert (await bed.ask([body[:10], body[10:11], body[11:]], headers)).status == 200
    assert len(bed.store.objects) == 1


ODD = {
    "duplicate_keys": b'{"event":"egress_ended","event":"egress_ended","x":1,"x":2}',
    "nan": b'{"event":"egress_ended","x":NaN}',
    "unknown_kind": b'{"event":"egress_of_a_newer_version"}',
    "kind_is_no_name": b'{"event":"egress_../../etc"}',
    "info_is_a_list": b'{"event":"egress_ended","egressInfo":[]}',
    "id_is_a_number": b'{"event":"egress_ended","egressInfo":{"egressId":7}}',
    "id_climbs": b'{"event":"egress_ended","egressInfo":{"egressId":"../../x"}}',
    "time_is_text": b'{"event":"egress_ended","createdAt":"yesterday"}',
    "time_is_huge": b'{"event":"egress_ended","createdAt":9e18}',
    "time_is_long_ago": b'{"event":"egress_ended","createdAt":"1"}',
    "huge_number": b'{"event":"egress_ended","x":' + b"9" * 5000 + b"}",
    "time_as_a_number": b'{"event":"egress_ended","createdAt":1795442370}',
    "surrogate": b'{"event":"egress_ended","x":"\\ud800"}',
    "nul": b'{"event":"egress_ended","x":"\\u0000"}',
    "white_space": b' \n{"event" : "egress_ended"}\r\n ',
    "snake_case": b'{"event":"egress_ended","egress_info":{"egress_id":"EG_9"},"created_at":"1"}',
}


@pytest.mark.parametrize("name", ODD)
async def test_whatever_livekit_signed_is_kept_as_it_is(name):
    bed = ReceiverBed()
    assert (await bed.deliver(ODD[name])).status == 200
    ((key, kept),) = bed.store.objects.items()
    assert StoredWebhook.model_validate_json(kept).body.encode() == ODD[name]
    assert key.startswith(HOUR), "in the token's hour"
    assert key.count("/") == HOUR.count("/")


SIGNED_BUT_NO_EVENT = {
    "not_json": b"egress_ended",
    "empty": b"",
    "list": b"[]",
    "text": b'"egress_ended"',
    "no_event": b'{"egressInfo":{}}',
    "event_is_a_number": b'{"event":7}',
    "not_utf8": b'{"event":"egress_ended","x":"\xff"}',
    "utf16": '{"event":"egress_ended"}'.encode("utf-16"),
    "deep": b'{"event":"egress_ended","x":' + b"[" * 100_000,
    "two_documents": b'{"event":"egress_ended"}{"event":"egress_ended"}',
}


@pytest.mark.parametrize("name", SIGNED_BUT_NO_EVENT)
async def test_signed_but_no_event_is_400(name):
    bed = ReceiverBed()
    assert (await bed.deliver(SIGNED_BUT_NO_EVENT[name])).status == 400
    assert not bed.store.objects
    assert bed.metric("webhooks_refused_total", reason="no_event") == 1


BODY = event()


def forged(**claims: object) -> dict[str, str]:
    return {"authorization": sign_webhook(BODY, "APIone", SECRET, at=NOW, **claims)}


REFUSED = {
    "no_token": ({"authorization": ""}, 401, "missing_token"),
    "garbage": ({"authorization": "garbage"}, 401, "malformed_token"),
    "wrong_secret": ({"authorization": sign_webhook(BODY, "APIone", OTHER, at=NOW)}, 401, "wrong_signature"),
    "unknown_key": ({"authorization": sign_webhook(BODY, "APItwo", SECRET, at=NOW)}, 401, "unknown_key"),
    "no_issuer": (forged(iss=None), 401, "unknown_key"),
    "another_body": ({"authorization": sign_webhook(b"{}", "APIone", SECRET, at=NOW)}, 401, "other_body"),
    "no_digest": (forged(sha256=None), 401, "other_body"),
    "expired": (forged(nbf=1, exp=2), 401, "expired"),
    "not_yet": (forged(nbf=int(NOW.timestamp()) + 61), 401, "not_yet_valid"),
    "no_expiry": (forged(exp=None), 401, "no_expiry"),
    "huge_token": ({"authorization": "a" * 9000}, 401, "malformed_token"),
    "not_ascii": ({"authorization": "Bearer é"}, 401, "malformed_token"),
    "form": ({"content-type": "application/x-www-form-urlencoded"}, 415, "content_type"),
    "text": ({"content-type": "text/plain"}, 415, "content_type"),
    "no_type": ({"content-type": ""}, 415, "content_type"),
    "type_that_begins_so": ({"content-type": "application/json-patch"}, 415, "content_type"),
    "announced_too_large": ({"content-length": "1048577"}, 413, "too_large"),
    "announced_absurd": ({"content-length": "9" * 30}, 413, "too_large"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_with_the_right_code_and_no_word_of_why(name):
    headers, status, reason = REFUSED[name]
    bed = ReceiverBed()
    answer = await bed.deliver(BODY, **headers)
    assert (answer.status, answer.body) == (status, b"")
    assert "www-authenticate" not in answer.headers
    assert not bed.store.objects
    assert bed.metric("webhooks_refused_total", reason=reason) == 1
    assert bed.metric("webhooks_accepted_total") == 0


async def test_a_replay_is_refused_once_its_token_has_expired():
    bed = ReceiverBed()
    headers = {"content-type": CONTENT_TYPE, "authorization": bed.token(BODY)}
    bed.now = NOW + timedelta(minutes=7)
    assert (await bed.ask(BODY, headers)).status == 401
    assert not bed.store.objects


async def test_an_altered_body_is_refused():
    bed = ReceiverBed()
    headers = {"content-type": CONTENT_TYPE, "authorization": bed.token(BODY)}
    assert (await bed.ask(BODY.replace(b"EG_1", b"EG_2"), headers)).status == 401
    assert not bed.store.objects


@pytest.mark.parametrize(("order", "status"), [(("good", "Bearer x"), 200), (("Bearer x", "good"), 401)])
async def test_of_two_authorization_headers_the_first_counts(order, status):
    bed = ReceiverBed()
    answer = await bed.deliver(BODY, Authorization=bed.token(BODY))
    assert answer.status == 200
    values = [bed.token(BODY) if value == "good" else value for value in order]
    request_headers = [(b"content-type", CONTENT_TYPE.encode())]
    request_headers += [(b"authorization", value.encode()) for value in values]
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    async def receive():
        return {"type": "http.request", "body": BODY, "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/webhook", "query_string": b"", "headers": request_headers}
    await bed.app(scope, receive, send)
    assert statuses[0] == status


async def test_a_body_without_a_length_is_cut_off_at_the_limit():
    bed = ReceiverBed(settings={"webhook_max_bytes": 4096})
    body = b'{"event":"egress_ended","x":"' + b"x" * 4096 + b'"}'
    headers = {"content-type": CONTENT_TYPE, "authorization": bed.token(body)}
    answer = await bed.ask([body[:3000], body[3000:], None], headers)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    at_limit = b'{"event":"egress_ended","x":"' + b"x" * (4096 - 31) + b'"}'
    assert len(at_limit) == 4096
    assert (await bed.deliver(at_limit)).status == 200


async def test_what_is_not_signed_is_refused_before_its_body_is_read():
    bed = ReceiverBed()
    answer = await bed.ask([None], {"content-type": CONTENT_TYPE, "authorization": "Bearer nonsense"})
    assert (answer.status, answer.headers["connection"]) == (401, "close"), "nor is it waited for"


async def test_a_body_that_drips_is_given_up():
    bed = ReceiverBed(body_seconds=0.05)
    headers = {"content-type": CONTENT_TYPE, "authorization": bed.token(BODY)}
    answer = await bed.ask([BODY[:5], None], headers)
    assert (answer.status, answer.headers["connection"]) == (503, "close"), "it is LiveKit's, and shall come again"
    assert bed.writer.in_flight == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_only_post(method):
    answer = await ReceiverBed().ask(method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/", "/webhooks", "/livekit-backup", "/docs", "/webhook/x"])
async def test_nothing_else_is_there(path):
    assert (await ReceiverBed().ask(path=path)).status == 404


FAULTS = {
    "unavailable": StorageUnavailableError("s3://acme-events/x: the store did not answer"),
    "denied": AccessDeniedError("s3://acme-events/x: PutObject answered AccessDenied"),
    "no_bucket": ConfigurationError("s3://acme-events/x: NoSuchBucket"),
    "unforeseen": RuntimeError("what nobody has thought of"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_cannot_be_stored_is_to_be_sent_again(name):
    bed = ReceiverBed(BrokenStore(FAULTS[name]))
    answer = await bed.deliver(BODY)
    assert (answer.status, answer.body) == (503, b"")
    assert sum(WAITS) <= len(WAITS) * int(answer.headers["retry-after"]) < 30, "LiveKit does not give up sooner by it"
    assert bed.metric("webhooks_failed_total", reason="inbox") == 1
    bed.store.error = None
    assert (await bed.deliver(BODY)).status == 200
    assert bed.writer.in_flight == 0


async def test_a_store_without_rights_is_opened_anew_since_its_keys_may_have_been_changed():
    opened = []
    clock = [0.0]
    bed = ReceiverBed(limits={"clock": lambda: clock[0]})
    bed.writer._open_store = lambda: opened.append(BrokenStore(FAULTS["denied"])) or opened[-1]
    for at, stores in ((0, 1), (5, 1), (11, 1), (12, 2), (13, 2)):
        clock[0] = at
        assert (await bed.deliver(BODY)).status == 503
        assert len(opened) == stores, at


async def test_a_write_that_hangs_is_answered_for_and_holds_its_room():
    bed = ReceiverBed(SlowStore(), limits={"answer_seconds": 0.05, "max_events": 2})
    first = await bed.deliver(event(egress_id="EG_1"))
    second = await bed.deliver(event(egress_id="EG_2"))
    assert (first.status, second.status) == (503, 503)
    assert bed.writer.in_flight == 2
    assert (await bed.deliver(event(egress_id="EG_3"))).status == 503
    assert bed.metric("webhooks_failed_total", reason="full") == 1
    bed.store.go.set()
    await asyncio.to_thread(bed.writer.close)
    assert bed.writer.in_flight == 0
    assert len(bed.store.objects) == 2, "the hanging writes went through, and the next delivery finds them"


async def test_no_more_events_at_a_time_than_there_is_room_for():
    bed = ReceiverBed(SlowStore(), limits={"max_events": 3})
    waiting = [asyncio.create_task(bed.deliver(event(egress_id=f"EG_{number}"))) for number in range(3)]
    for _ in range(3):
        assert await asyncio.to_thread(bed.store.begun.acquire, True, 10)
    refused = await bed.deliver(event(egress_id="EG_more"))
    assert (refused.status, "retry-after" in refused.headers) == (503, True)
    bed.store.go.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 3
    assert (await bed.deliver(event(egress_id="EG_more"))).status == 200


async def test_no_more_bytes_at_a_time_than_there_is_room_for():
    body = event(padding="x" * 3000)
    bed = ReceiverBed(SlowStore(), limits={"max_bytes": 5000})
    waiting = asyncio.create_task(bed.deliver(body))
    assert await asyncio.to_thread(bed.store.begun.acquire, True, 10)
    assert (await bed.deliver(body)).status == 503
    headers = {"content-type": CONTENT_TYPE, "authorization": bed.token(body)}
    assert (await bed.ask([body[:1000], body[1000:]], headers)).status == 503, "also without a length"
    bed.store.go.set()
    assert (await waiting).status == 200
    assert (await bed.deliver(body)).status == 200


@pytest.mark.parametrize("error", [ConfigurationError("no such connection"), OSError("the database is down")])
async def test_without_keys_nothing_is_refused_for_good(error):
    def broken():
        raise error

    bed = ReceiverBed(keys=broken)
    answer = await bed.deliver(BODY)
    assert (answer.status, "retry-after" in answer.headers) == (503, True)
    assert bed.metric("webhooks_failed_total", reason="keys") == 1


async def test_a_key_that_may_be_new_is_not_refused_for_good_while_keys_cannot_be_read():
    broken = []

    def read():
        if broken:
            raise OSError("the database is down")
        return {"APIold": SECRET}

    clock = [0.0]
    bed = ReceiverBed(keys=read)
    bed.receiver.keys._clock = lambda: clock[0]
    forged = {"authorization": sign_webhook(BODY, "APIold", OTHER, at=NOW)}
    assert (await bed.deliver(BODY)).status == 401, "there is no such key"
    broken.append(True)
    clock[0] = 11.0
    for _ in range(2):
        assert (await bed.deliver(BODY)).status == 503
    assert (await bed.deliver(BODY, **forged)).status == 401, "what is known is judged"
    broken.clear()
    clock[0] = 30.0
    assert (await bed.deliver(BODY)).status == 401


async def test_a_key_that_may_be_new_is_not_refused_for_good_while_keys_are_slow_to_read(monkeypatch):
    monkeypatch.setattr(signing_keys, "READ_SECONDS", 0.05)
    go, hangs, clock = threading.Event(), [], [0.0]

    def read():
        assert not hangs or go.wait(10)
        return {"APIold": SECRET}

    bed = ReceiverBed(keys=read)
    bed.receiver.keys._clock = lambda: clock[0]
    assert (await bed.deliver(BODY)).status == 401
    hangs.append(True)
    clock[0] = 11.0
    assert (await bed.deliver(BODY)).status == 503
    go.set()


async def test_no_keys_at_all_is_a_fault_of_ours():
    assert (await ReceiverBed(keys=dict).deliver(BODY)).status == 503


async def test_health_needs_nothing():
    bed = ReceiverBed(BrokenStore(FAULTS["denied"]), keys=dict)
    for path in ("/health", "/livekit-backup/health"):
        assert (await bed.ask(path=path, method="GET")).status == 200


async def test_it_is_ready_when_the_inbox_can_be_written():
    bed = ReceiverBed()
    answers = await asyncio.gather(*(bed.ask(path="/ready", method="GET") for _ in range(5)))
    assert {answer.status for answer in answers} == {200}
    (marker,) = bed.store.objects
    assert marker == f"{INBOX}/_livekit_backup/receiver.json"


@pytest.mark.parametrize("how", [{"store": BrokenStore(FAULTS["denied"])}, {"keys": dict}], ids=["inbox", "keys"])
async def test_it_is_not_ready_and_says_so_without_a_word_of_where(how):
    answer = await ReceiverBed(**how).ask(path="/ready", method="GET")
    assert (answer.status, answer.body) == (503, b"not ready\n")


async def test_metrics_tell_no_secret_and_no_place():
    bed = ReceiverBed()
    await bed.deliver(BODY)
    await bed.deliver(BODY, authorization=sign_webhook(BODY, "APItwo", SECRET, at=NOW))
    answer = await bed.ask(path="/metrics", method="GET")
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    assert "livekit_backup_webhooks_stored_total 1.0" in text
    assert 'livekit_backup_webhooks_refused_total{reason="unknown_key"} 1.0' in text
    assert not [word for word in (SECRET, "acme-events", "APIone", "APItwo", "EG_1") if word in text]


async def test_refusals_are_logged_once_a_reason_and_without_the_token(caplog):
    bed = ReceiverBed()
    token = sign_webhook(BODY, "APIone", OTHER, at=NOW)
    with caplog.at_level(logging.WARNING, logger="livekit_backup"):
        for _ in range(50):
            await bed.deliver(BODY, authorization=token)
        await bed.deliver(BODY, authorization="")
    assert len(caplog.records) == 2
    assert "wrong_signature" in caplog.text
    assert token not in caplog.text and token.split(".")[2] not in caplog.text


async def test_what_was_accepted_is_stored_before_the_process_ends():
    bed = ReceiverBed(SlowStore(), limits={"answer_seconds": 0.05})
    assert (await bed.deliver(BODY)).status == 503
    async with bed.app.router.lifespan_context(bed.app):
        bed.store.go.set()
    assert len(bed.store.objects) == 1
