"""``doctor`` without servers: how checks are run and shown, what S3's errors mean, and what is secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from argparse import ArgumentParser
from datetime import UTC, datetime
from importlib.metadata import entry_points

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from livekit_backup.commands.definition import get_commands
from livekit_backup.commands.doctor import checks
from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.commands.s3_faults import Attempt, explain, is_denial
from livekit_backup.commands.setting_checks import check_allowed_hosts, check_proxies, check_settings
from livekit_backup.core.examination import CannotCheckError, Check, count_verdicts, examine
from livekit_backup.core.findings_text import findings_json, findings_table
from livekit_backup.errors import LivekitBackupError
from livekit_backup.hooks.configuration import KEYS
from livekit_backup.hooks.s3_errors import store_errors
from livekit_backup.models.finding import Finding, Verdict, broken, not_checked, note, ok, warning

from ..conftest import ROOT

SECTION = "AIRFLOW__LIVEKIT_BACKUP__"


def run(*checks, seconds=5.0, safe=str):
    return examine(checks, None, seconds=seconds, safe=safe)


def finds(*findings):
    return lambda _: iter(findings)


def fails(error):
    def find(_):
        yield ok("before")
        raise error

    return find


# --- how checks are run


def test_findings_come_in_the_order_of_the_checks():
    first_may_end = threading.Event()

    def slow(_):
        first_may_end.wait(5)
        yield ok("slow")

    def quick(_):
        yield ok("quick")
        first_may_end.set()

    assert [finding.check for finding in run(Check("a", slow), Check("b", quick))] == ["a", "b"]


@pytest.mark.parametrize("bad", [broken("x", "y"), not_checked("x")])
def test_what_needs_something_broken_is_not_checked_and_says_so(bad):
    found = run(Check("a", finds(ok("fine"), bad)), Check("b", fails(AssertionError("asked")), needs=("a",)))
    assert [(finding.check, finding.verdict) for finding in found[2:]] == [("b", Verdict.NOT_CHECKED)]
    assert "a" in found[2].what.split()


@pytest.mark.parametrize("good", [warning("x", "y"), note("x"), ok("x")])
def test_a_warning_is_in_nobodys_way(good):
    found = run(Check("a", finds(good)), Check("b", finds(ok("fine")), needs=("a",)))
    assert found[1].verdict is Verdict.OK


def test_a_check_can_wait_for_another_whatever_that_finds():
    seen = []
    first = Check("a", lambda _: iter([broken("x", "y")] if not seen.append("a") else []))
    found = run(Check("b", lambda _: iter([ok(str(seen))]), after=("a",)), first)
    assert found[0].what == "['a']"


def test_an_error_is_a_finding_and_ends_no_other_check():
    found = run(Check("a", fails(RuntimeError("oh"))), Check("b", finds(ok("fine"))))
    assert [finding.verdict for finding in found] == [Verdict.OK, Verdict.BROKEN, Verdict.OK]
    assert "RuntimeError: oh" in found[1].what and found[1].mend


def test_what_cannot_be_checked_says_why():
    (_, found) = run(Check("a", fails(CannotCheckError("no right"))))
    assert (found.verdict, found.what) == (Verdict.NOT_CHECKED, "no right")


def test_a_check_that_hangs_keeps_what_it_has_found():
    never = threading.Event()

    def hangs(_):
        yield ok("so far")
        never.wait(30)

    found = run(Check("a", hangs, seconds=0.1), Check("b", finds(ok("fine")), needs=("a",)), Check("c", finds(ok("x"))))
    never.set()
    assert [(finding.check, finding.verdict) for finding in found] == [
        ("a", Verdict.OK),
        ("a", Verdict.BROKEN),
        ("b", Verdict.NOT_CHECKED),
        ("c", Verdict.OK),
    ]


def test_all_checks_together_are_bounded():
    never = threading.Event()
    found = run(Check("a", lambda _: iter([ok(str(never.wait(30)))]), seconds=30), seconds=0.1)
    never.set()
    assert [finding.verdict for finding in found] == [Verdict.BROKEN]


def test_a_check_that_waits_for_none_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="b waits"):
        run(Check("b", finds(ok("x")), needs=("a",)))


def test_every_text_passes_through_what_makes_it_safe():
    found = run(Check("a", fails(RuntimeError("hush\x1b[31m"))), safe=lambda text: text.replace("hush", "…"))
    assert "hush" not in repr(found) and "\x1b" not in found[1].what


def test_the_doctors_checks_wait_for_checks_that_are_there():
    names = [check.name for check in checks()]
    assert len(set(names)) == len(names)
    assert {needed for check in checks() for needed in (*check.needs, *check.after)} <= set(names)
    assert sum(check.seconds > 45 for check in checks()) == 0


# --- how findings are shown

FINDINGS = [
    Finding(check="inbox", verdict=Verdict.OK, what="answers"),
    Finding(check="warehouse", verdict=Verdict.BROKEN, what="the bucket is missing", mend="aws s3 mb s3://x"),
]


def test_the_table_names_fault_and_mend():
    assert findings_table(FINDINGS).splitlines() == [
        "ok           inbox      answers",
        "BROKEN       warehouse  the bucket is missing",
        "                        mend: aws s3 mb s3://x",
        "",
        "1 ok, 1 broken",
    ]


def test_the_table_fits_a_terminal_and_breaks_no_word():
    long = Finding(check="inbox", verdict=Verdict.WARNING, what="a word " * 30, mend=f"set {'x' * 90} now")
    lines = findings_table([long], width=80).splitlines()
    assert all(len(line) <= 80 or "x" * 90 in line for line in lines) and len(lines) > 5
    assert "\033" not in findings_table([long], width=80)
    assert "\033[33m" in findings_table([long], width=80, colours=True)


def test_json_says_whether_something_is_broken():
    report = json.loads(findings_json(FINDINGS, datetime(2026, 11, 23, tzinfo=UTC)))
    assert (report["ok"], report["checked_at"]) == (False, "2026-11-23T00:00:00+00:00")
    assert report["counts"] == {"ok": 1, "note": 0, "warning": 0, "broken": 1, "not checked": 0}
    assert report["findings"][1] == {
        "check": "warehouse",
        "verdict": "broken",
        "what": "the bucket is missing",
        "mend": "aws s3 mb s3://x",
    }
    assert json.loads(findings_json([warning("x", "y")], datetime.now(UTC)))["ok"] is True
    assert count_verdicts([])[Verdict.OK] == 0


# --- what S3's errors mean

ATTEMPT = Attempt(
    doing="store an event",
    uri="s3://acme/in/x/y.json",
    place="s3://acme/in",
    actions=("s3:PutObject",),
    conn_id="aws_events",
    setting="AIRFLOW__LIVEKIT_BACKUP__INBOX",
)


def refused(code, status=403, operation="PutObject", message=""):
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


def explained(error):
    """As the store raises it: our own error, with boto's behind it."""
    with pytest.raises(LivekitBackupError) as raised, store_errors(ATTEMPT.uri):
        raise error
    return explain(raised.value, ATTEMPT)


@pytest.mark.parametrize(
    ("error", "what", "mend"),
    [
        (
            refused("NoSuchBucket", 404),
            "bucket acme does not exist",
            "aws s3 mb s3://acme; or correct AIRFLOW__LIVEKIT",
        ),
        (refused("SignatureDoesNotMatch"), "secret key", "aws_events (password)"),
        (refused("InvalidAccessKeyId"), "access key", "aws_events (login)"),
        (refused("ExpiredToken", 400), "session token", "aws_session_token in the extra of the connection aws_events"),
        (refused("RequestTimeTooSkewed"), "clock", "timedatectl set-ntp true"),
        (refused("PermanentRedirect", 301), "another region", "region_name"),
        (refused("AuthorizationHeaderMalformed", 400), "another region", "get-bucket-location --bucket acme"),
        (refused("KMS.NotFoundException", 400), "encryption key is not there", "SSEKMSKeyId"),
        (
            refused("AccessDenied", message="not authorized to perform: kms:GenerateDataKey on resource"),
            "by its encryption key",
            "kms:GenerateDataKey",
        ),
        (refused("AccessDenied"), "the right s3:PutObject is missing", '"Resource": "arn:aws:s3:::acme/in/*"'),
        (refused("403"), "the right s3:PutObject is missing", '"Action": ["s3:PutObject"]'),
        (refused("TeaPot", 418), "answered TeaPot", "AIRFLOW__LIVEKIT_BACKUP__INBOX"),
        (NoCredentialsError(), "no credentials", "login and password"),
        (
            EndpointConnectionError(endpoint_url="http://s3.acme:9000"),
            "http://s3.acme:9000",
            "endpoint_url in the extra",
        ),
    ],
)
def test_each_refusal_is_explained(error, what, mend):
    found = explained(error)
    assert found.verdict is Verdict.BROKEN
    assert found.what.startswith("cannot store an event at s3://acme/in/x/y.json: ")
    assert what in found.what and mend in found.mend


def test_a_right_on_a_bucket_is_one_of_the_bucket():
    attempt = Attempt("list objects", "s3://acme/in", "s3://acme/in", ("s3:ListBucket",), "a", "b", "aws-cn")
    mend = explain(refused("AccessDenied"), attempt).mend
    assert json.loads(mend.removeprefix("allow it: "))["Resource"] == "arn:aws-cn:s3:::acme"


@pytest.mark.parametrize(
    "code", ["SignatureDoesNotMatch", "InvalidAccessKeyId", "RequestTimeTooSkewed", "KMS.AccessDenied"]
)
def test_wrong_keys_are_no_missing_right(code):
    assert not is_denial(refused(code))
    assert is_denial(refused("AccessDenied"))


# --- settings


@pytest.fixture
def section(monkeypatch):
    for key in KEYS:
        monkeypatch.delenv(f"{SECTION}{key.upper()}", raising=False)

    def set_keys(**values):
        for key, value in values.items():
            monkeypatch.setenv(f"{SECTION}{key.upper()}", value)
        return ExaminedSetup()

    return set_keys


def test_each_broken_key_is_named_and_the_others_can_be_used(section):
    setup = section(warehouse="s3://acme/x", grace="soon", parallel_ranges="99", allowed_hosts="*", landing_key="{oh}")
    found = list(check_settings(setup))
    faults = [finding for finding in found if finding.verdict is Verdict.BROKEN]
    assert [finding.what.split()[0].partition(".")[0] for finding in faults] == [
        "inbox",
        "landing_key",
        "parallel_ranges",
        "allowed_hosts",
        "grace",
    ]
    for finding in faults:
        key = finding.what.split()[0].partition(".")[0]
        assert f"AIRFLOW__LIVEKIT_BACKUP__{key.upper()}" in finding.mend
    assert setup.place("warehouse") == "s3://acme/x"
    assert setup.place("ledger") == "s3://acme/x/_livekit_backup"
    with pytest.raises(CannotCheckError, match="the setting inbox"):
        setup.place("inbox")
    with pytest.raises(CannotCheckError, match="allowed_hosts"):
        list(check_allowed_hosts(setup))


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        *[(key, "nowhere") for key in ("inbox", "warehouse", "ledger", "allowed_hosts")],
        *[
            (key, "soon")
            for key in ("grace", "lookback", "alarm_hours", "bundle_files", "bundle_bytes", "parallel_ranges")
        ],
        *[(key, "perhaps") for key in ("on_conflict", "verify", "probe", "max_bytes_per_second", "upload_options")],
        ("landing_key", "{oh}"),
    ],
)
def test_whichever_key_is_broken_the_others_are_looked_at(section, key, wrong):
    setup = section(
        **{"inbox": "s3://acme/in", "warehouse": "s3://acme/out", key: wrong if key != "allowed_hosts" else "*"}
    )
    assert list(setup.broken_keys) == [key]
    assert [finding.verdict for finding in check_settings(setup)] == [Verdict.BROKEN, Verdict.OK]


@pytest.mark.parametrize("installed", [True, False])
def test_a_probe_without_its_extra_is_noted(section, monkeypatch, installed):
    monkeypatch.setattr("livekit_backup.commands.setting_checks.is_installed", lambda: installed)
    found = list(check_settings(section(inbox="s3://acme/in", warehouse="s3://acme/out", probe="true")))
    assert [finding.verdict for finding in found] == [Verdict.OK, Verdict.NOTE][: 2 - installed]
    assert installed or "[media]" in found[-1].mend


def test_a_ledger_in_a_warehouse_that_is_not_set_is_nowhere(section):
    setup = section(inbox="s3://acme/in")
    with pytest.raises(CannotCheckError):
        setup.place("ledger")
    assert section(ledger="s3://acme/ledger").place("ledger") == "s3://acme/ledger"


def test_a_host_that_does_not_resolve_is_named(section, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    setup = section(allowed_hosts="127.0.0.1:9000, *.amazonaws.com, s3.acme.invalid, [::1]:9000")
    found = list(check_allowed_hosts(setup))
    assert [finding.verdict for finding in found] == [Verdict.WARNING, Verdict.OK]
    assert "s3.acme.invalid" in found[0].what and "getent hosts s3.acme.invalid" in found[0].mend
    assert "2 of 3 full names" in found[1].what


def test_an_unusable_proxy_is_named_without_its_password(section, monkeypatch):
    setup = section()
    monkeypatch.setenv("https_proxy", "socks5://jo:hush-hush@proxy:1080")
    (found,) = check_proxies(setup)
    assert found.verdict is Verdict.BROKEN and "https_proxy" in found.what and "http://host:port" in found.mend
    assert "hush" not in repr(found)
    monkeypatch.setenv("https_proxy", "http://jo:hush-hush@proxy:1080")
    (found,) = check_proxies(setup)
    assert found.what.endswith("through the proxy of https_proxy")


# --- secrets


def test_secrets_of_connections_and_proxies_are_taken_out(section, monkeypatch):
    extra = {
        "region_name": "eu-central-1",
        "aws_session_token": "the+session/token",
        "assume_role_kwargs": {"ExternalId": "external-id"},
    }
    connection = {"conn_type": "aws", "login": "AKIA", "password": "the/secret+key", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    keys = {"webhook_secrets": json.dumps({"APIother": "webhook-secret"})}
    livekit = {"conn_type": "livekit", "login": "APIkey", "password": "livekit-secret", "extra": keys}
    monkeypatch.setenv("AIRFLOW_CONN_LIVEKIT_DEFAULT", json.dumps(livekit))
    monkeypatch.setenv("HTTPS_PROXY", "http://jo:p%40ssword@proxy:1")
    setup = section()
    assert setup.connection("aws_default") and setup.connection("livekit_default")
    for secret in (
        "the/secret+key",
        "the%2Fsecret%2Bkey",
        "the+session/token",
        "external-id",
        "livekit-secret",
        "webhook-secret",
        "p@ssword",
        "p%40ssword",
    ):
        assert setup.safe(f"it said '{secret}'.") == "it said '…'.", secret
    assert setup.safe("region eu-central-1, key APIkey") == "region eu-central-1, key APIkey"
    assert setup.safe("see http://jo:x@host/a?X-Amz-Signature=00 now") == "see http://…@host/a?… now"


def test_secrets_are_known_though_other_settings_are_broken(section, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_AWS_EVENTS", json.dumps({"conn_type": "aws", "password": "the-secret"}))
    setup = section(inbox="s3://acme/in", inbox_conn_id="aws_events", grace="soon")
    assert setup.connection(setup.conn_id("inbox")).password == "the-secret"
    assert setup.safe("the-secret") == "…"
    assert setup.connection("nobody") is None


# --- the command


def test_the_group_is_a_parser_that_airflow_can_make():
    (group,) = get_commands()
    assert group.name == "livekit-backup" and group.help
    (doctor,) = [command for command in group.subcommands if command.name == "doctor"]
    parser = ArgumentParser()
    for argument in doctor.args:
        argument.add_to_parser(parser)
    given = parser.parse_args(["--json", "--dag-id", "mine", "--dag-id", "other"])
    assert (given.json, given.dag_id, given.verbose) == (True, ["mine", "other"], False)
    assert parser.parse_args([]).dag_id is None


def test_airflow_is_told_of_the_group():
    [provider] = [one for one in entry_points(group="apache_airflow_provider") if "livekit" in one.value]
    assert provider.load()()["cli"] == ["livekit_backup.commands.definition.get_commands"]


def test_loading_the_definition_loads_nothing_behind_it():
    code = """
import json, sys
import airflow.cli.cli_config
before = set(sys.modules)
import livekit_backup.commands.definition
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1])) - {"livekit_backup"}
    assert loaded == {"livekit_backup.commands", "livekit_backup.commands.definition"}


def test_doctors_help_by_airflows_own_command():
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "livekit-backup", "doctor", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout and "--dag-id" in done.stdout and "broken" in done.stdout


def test_every_check_option_and_verdict_is_in_the_docs():
    section = (ROOT / "docs" / "commands.md").read_text().partition("## doctor")[2].partition("\n## ")[0]
    named = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    (doctor,) = [command for command in get_commands()[0].subcommands if command.name == "doctor"]
    options = [argument.flags[-1] for argument in doctor.args]
    assert named == [*options, *Verdict, *dict.fromkeys(named[len(options) + len(Verdict) :])]
    assert set(named[len(options) + len(Verdict) :]) == {check.name for check in checks()}
