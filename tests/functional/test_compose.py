"""docker-compose.yaml: what it promises, and its demo's commands run as written, without a container."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from livekit_backup.testing.fake_api import API_KEYS

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "FERNET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__API__SECRET_KEY",
    "POSTGRES_PASSWORD",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
}
OPTIONAL = {"LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "LIVEKIT_KEYS"}
"""Recoveries go without; what needs them says so itself, since Compose would ask for them whatever the profile."""
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<operator>:?[-?])(?P<rest>[^}]*))?\}")


def interpolated(value: Any, variables: dict[str, str]) -> Any:
    """The value with its variables replaced, as Compose does it."""
    if isinstance(value, dict):
        return {key: interpolated(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        given = variables.get(match["name"], "")
        if given or not match["operator"]:
            return given
        assert not match["operator"].endswith("?"), f"{match['name']}: {match['rest']}"
        return match["rest"]

    return VARIABLE.sub(one, value)


class ComposeFile:
    """The services of docker-compose.yaml, with texts replaced that only hold in a container."""

    def __init__(self, variables: dict[str, str], moved: dict[str, str] | None = None) -> None:
        written = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
        self.services = interpolated(written["services"], variables)
        self.moved = moved or {}

    def here(self, text: str) -> str:
        for container, machine in self.moved.items():
            text = text.replace(container, machine)
        return text

    def command(self, service: str) -> list[str]:
        return [self.here(word) for word in self.services[service]["command"]]

    def healthcheck(self, service: str) -> list[str]:
        kind, *words = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return [self.here(word) for word in words]

    def environment(self, service: str, **more: str) -> dict[str, str]:
        """The service's own environment and nothing of this process, as in a container."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {key: self.here(value) for key, value in self.services[service]["environment"].items()}
        return {"PATH": path, "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1"} | own | more


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], log: Path, **options: Any):
    """A command in a process group of its own, stopped with all its children; it must live until then."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
        try:
            yield process
            assert process.poll() is None, f"{command} ended:\n{log.read_text()[-4000:]}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def succeeds_within(seconds: float, command: list[str], environment: dict[str, str]) -> bool:
    """Whether a health check succeeds in time; it is asked again and again, as the engine does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
        if done.returncode == 0:
            return True
        time.sleep(0.5)
    return False


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def made_up() -> dict[str, str]:
    """A value for each secret."""
    return {name: f"made-up-{name.lower()}" for name in SECRETS}


def variables_of(path: str) -> list[re.Match[str]]:
    return [match for match in VARIABLE.finditer((ROOT / path).read_text()) if match["name"]]


def example_values() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def compose() -> ComposeFile:
    return ComposeFile(made_up())


def is_one_shot(service: dict[str, Any]) -> bool:
    return service["restart"] == "no"


def test_no_secret_has_a_default() -> None:
    uses = variables_of("docker-compose.yaml")
    assert not SECRETS - {use["name"] for use in uses}
    for use in uses:
        if use["name"] in OPTIONAL:
            assert (use["operator"], use["rest"]) == (":-", "")
        elif use["name"] in SECRETS or re.search(r"KEY|SECRET|PASSWORD|TOKEN", use["name"]):
            assert use["operator"] == ":?", use[0]
            assert use["rest"], use[0]


def test_the_example_explains_every_variable_and_gives_no_secret() -> None:
    example = example_values()
    uses = variables_of("docker-compose.yaml")
    assert set(example) == {use["name"] for use in uses} | {"COMPOSE_PROFILES"}
    assert {name for name, value in example.items() if not value} == SECRETS | OPTIONAL
    for use in uses:
        if use["operator"] == ":-":
            assert example[use["name"]] == use["rest"]
    page = (ROOT / "docs" / "compose.md").read_text()
    assert not [name for name in example if f"`{name}`" not in page]


def test_every_image_is_pinned(compose: ComposeFile) -> None:
    images = {service["image"] for service in compose.services.values()}
    bases = re.findall(r"^(?:ARG \w+=|FROM )([\w./-]+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert len(images) == 3
    assert len(bases) == 1
    for image in [*images, *bases]:
        assert re.search(r":v?\d+[\w.-]*$", image), image


def test_a_service_either_ends_or_is_watched_and_restarted(compose: ComposeFile) -> None:
    one_shots = {name for name, service in compose.services.items() if is_one_shot(service)}
    assert one_shots == {"init", "s3-volume", "s3-buckets", "demo-events"}
    for name, service in compose.services.items():
        if name in one_shots:
            assert "healthcheck" not in service
        else:
            assert service["restart"] == "unless-stopped"
            assert {"test", "interval", "timeout", "retries", "start_period"} == set(service["healthcheck"])
        for needed, how in service.get("depends_on", {}).items():
            ends = "service_completed_successfully" if needed in one_shots else "service_healthy"
            assert how == {"condition": ends}, (name, needed)


def test_nothing_needs_what_its_profiles_leave_out(compose: ComposeFile) -> None:
    for name, service in compose.services.items():
        for needed in service.get("depends_on", {}):
            wanted = compose.services[needed].get("profiles")
            assert not wanted or set(service["profiles"]) <= set(wanted), name


def test_nothing_runs_as_root_or_is_reachable_from_outside(compose: ComposeFile) -> None:
    for name, service in compose.services.items():
        assert service["user"] in {"50000:0", "postgres"}, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service
        for port in service.get("ports", []):
            assert name in {"api-server", "s3", "receiver"}
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    assert re.findall(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == ["50000:0"]


def test_what_must_last_is_in_named_volumes(compose: ComposeFile) -> None:
    named = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["volumes"]
    used = {volume.split(":")[0] for service in compose.services.values() for volume in service.get("volumes", [])}
    assert used == set(named)


def test_every_setting_is_one_that_airflow_knows(compose: ComposeFile) -> None:
    from airflow.configuration import conf

    from livekit_backup.provider_info import OPTIONS

    known = {
        f"AIRFLOW__{section}__{option}".upper()
        for section, described in conf.configuration_description.items()
        for option in described["options"]
    } | {f"AIRFLOW__LIVEKIT_BACKUP__{option}".upper() for option in OPTIONS}
    settings = {name for name in compose.services["scheduler"]["environment"] if name.startswith("AIRFLOW__")}
    assert settings <= known, settings - known
    for name in ("init", "api-server", "dag-processor", "triggerer"):
        assert compose.services[name]["environment"] == compose.services["scheduler"]["environment"]


def test_the_connection_is_the_one_that_the_keys_make(compose: ComposeFile) -> None:
    connection = json.loads(compose.services["scheduler"]["environment"]["AIRFLOW_CONN_AWS_DEFAULT"])
    assert connection == {
        "conn_type": "aws",
        "login": "made-up-s3_access_key",
        "password": "made-up-s3_secret_key",
        "extra": {
            "endpoint_url": "http://s3:7070",
            "region_name": "us-east-1",
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        },
    }


def test_livekits_connection_is_the_one_that_its_address_and_key_make() -> None:
    given = {"LIVEKIT_URL": "https://acme.livekit.cloud", "LIVEKIT_API_KEY": "APIone", "LIVEKIT_API_SECRET": "one"}
    compose = ComposeFile(made_up() | given)
    assert json.loads(compose.services["scheduler"]["environment"]["AIRFLOW_CONN_LIVEKIT_DEFAULT"]) == {
        "conn_type": "livekit",
        "host": "https://acme.livekit.cloud",
        "login": "APIone",
        "password": "one",
    }


def test_the_demos_key_is_the_fakes() -> None:
    page = (ROOT / "docs" / "compose.md").read_text()
    [(key, secret)] = API_KEYS.items()
    assert f"LIVEKIT_API_KEY={key}\nLIVEKIT_API_SECRET={secret}\n" in page


def test_the_image_is_built_of_files_that_its_context_holds() -> None:
    ignored, *rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored == "*"
    for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in rules


@pytest.fixture(scope="session")
def config_command() -> list[str]:
    """Compose itself, which can check a file without an engine."""
    if shutil.which("docker"):
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if found.returncode == 0:
            return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither docker compose nor docker-compose is installed")


def ask_compose(command: list[str], variables: dict[str, str], tmp_path: Path) -> Any:
    """What Compose makes of the file; the names of the services that it would start."""
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    arguments = ["--env-file", str(env_file), "-f", "docker-compose.yaml"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    profiles = variables.get("COMPOSE_PROFILES")
    if profiles:
        environment["COMPOSE_PROFILES"] = profiles
    return subprocess.run(
        [*command, *arguments, "config", "--services"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


AIRFLOW = {"postgres", "init", "api-server", "scheduler", "dag-processor", "triggerer"}
S3 = {"s3-volume", "s3", "s3-buckets"}


@pytest.mark.parametrize(
    ("profiles", "services"),
    [
        ("", AIRFLOW),
        ("s3", AIRFLOW | S3),
        ("demo", AIRFLOW | S3 | {"livekit", "demo-events"}),
        ("receiver", AIRFLOW | {"receiver"}),
    ],
)
def test_compose_accepts_the_file_with_each_profile(
    config_command: list[str], tmp_path: Path, profiles: str, services: set[str]
) -> None:
    quiet = ask_compose(config_command, made_up() | {"COMPOSE_PROFILES": profiles}, tmp_path)
    assert quiet.returncode == 0, quiet.stderr
    assert set(quiet.stdout.split()) >= services


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_compose_refuses_to_go_on_without_a_secret(config_command: list[str], tmp_path: Path, secret: str) -> None:
    refused = ask_compose(config_command, example_values() | made_up() | {secret: ""}, tmp_path)
    assert refused.returncode != 0
    assert secret in refused.stderr


def test_the_demo_puts_a_fake_livekit_s_events_where_the_recovery_looks(
    s3_server: Any, s3_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livekit_backup.core.inbox import IntakeReader
    from livekit_backup.core.windows import inbox_prefixes
    from livekit_backup.hooks.object_store import S3ObjectStore
    from livekit_backup.models.window import Window
    from livekit_backup.provider_info import OPTIONS

    (port,) = free_ports(1)
    name = f"compose-{uuid.uuid4().hex[:8]}"
    compose = ComposeFile(
        made_up()
        | {
            "S3_ACCESS_KEY": s3_server.access_key,
            "S3_SECRET_KEY": s3_server.secret_key,
            "S3_ENDPOINT_URL": s3_server.endpoint_url,
            "LIVEKIT_BACKUP_INBOX": f"s3://{name}-events/inbox",
            "LIVEKIT_BACKUP_WAREHOUSE": f"s3://{name}-recordings/recovered",
        },
        {
            "http://s3:7070": s3_server.endpoint_url,
            "http://livekit:8090": f"http://127.0.0.1:{port}",
            "port=8090": f"port={port}",
            '", 8090,': f'", {port},',
            "0.0.0.0": "127.0.0.1",
            "/opt/airflow/demo-events": str(tmp_path / "events"),
            "/data": str(tmp_path),
        },
    )

    def once(service: str) -> str:
        done = subprocess.run(
            compose.command(service),
            env=compose.environment(service),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def healthy(seconds: float) -> bool:
        return succeeds_within(seconds, compose.healthcheck("livekit"), compose.environment("livekit"))

    once("s3-volume")
    assert once("s3-buckets").split() == ["created", f"{name}-events", "created", f"{name}-recordings"]
    assert once("s3-buckets").split() == ["exists", f"{name}-events", "exists", f"{name}-recordings"]
    assert not healthy(1)
    with running(compose.command("livekit"), compose.environment("livekit"), tmp_path / "livekit.log"):
        assert healthy(30), (tmp_path / "livekit.log").read_text()
        stored = once("demo-events").split()[1::2]
    assert not healthy(1)

    assert stored
    connection = compose.services["scheduler"]["environment"]["AIRFLOW_CONN_AWS_DEFAULT"]
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection)
    store = S3ObjectStore("aws_default")
    now = datetime.now(UTC)
    window = Window(start=now - timedelta(hours=1), end=now + timedelta(hours=1))
    layout = OPTIONS["inbox_layout"][1]
    reader = IntakeReader()
    found = []
    for prefix in inbox_prefixes(f"s3://{name}-events/inbox", layout, window):
        found += list(store.list_keys(prefix))
    reader.read(store, found)
    assert sorted(found) == sorted(stored)
    assert len(reader.result().backups) == len(stored)


def test_the_receiver_stores_what_livekit_signs(s3_server: Any, s3_client: Any, bucket: str, tmp_path: Path) -> None:
    from livekit_backup.testing import WebhookSender

    (port,) = free_ports(1)
    secret = "a-secret-of-more-than-thirty-two-bytes"
    variables = made_up() | {
        "S3_ACCESS_KEY": s3_server.access_key,
        "S3_SECRET_KEY": s3_server.secret_key,
        "S3_ENDPOINT_URL": s3_server.endpoint_url,
        "LIVEKIT_BACKUP_INBOX": f"s3://{bucket}/inbox",
    }
    moved = {"port=8070": f"port={port}", '", 8070,': f'", {port},', "0.0.0.0": "127.0.0.1"}
    keyless = ComposeFile(variables, moved)
    ended = subprocess.run(
        keyless.command("receiver"), env=keyless.environment("receiver"), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert "LIVEKIT_API_KEY" in ended.stderr

    compose = ComposeFile(variables | {"LIVEKIT_API_KEY": "APIcompose", "LIVEKIT_API_SECRET": secret}, moved)
    environment = compose.environment("receiver")
    log = tmp_path / "receiver.log"
    assert not succeeds_within(1, compose.healthcheck("receiver"), environment)
    with running(compose.command("receiver"), environment, log):
        assert succeeds_within(30, compose.healthcheck("receiver"), environment), log.read_text()
        with WebhookSender(f"http://127.0.0.1:{port}/webhook", "APIcompose", secret) as sender:
            assert sender.send({"event": "egress_ended", "egressInfo": {"egressId": "EG_1"}}).accepted
    keys = [item["Key"] for item in s3_client.list_objects_v2(Bucket=bucket, Prefix="inbox/2")["Contents"]]
    assert len(keys) == 1
    assert "/EG_1-egress_ended-" in keys[0]
