"""Recordings behind signed URLs over TLS: files behind nginx, or the fake LiveKit's server where there is no nginx.

nginx gives the ETags of S3, not its own. A request with If-Match, as a resume sends, takes a way through
a second server block, since nginx would hold it against the ETag that it does not have.

By hand: ``python benchmarks/tls_source.py --tls /tmp/bench-tls --port 9444 1073741824-0.mp4``.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from livekit_backup.testing.backup_server import BackupServer
from livekit_backup.testing.presigning import SigningKey, presign
from livekit_backup.testing.stored_objects import StoredObject
from local_server import end_gracefully, end_with_parent, roomy_folder, say_ready
from local_tls import HOST, LocalTls, local_tls
from synthetic_recordings import recording_content, write_recording

BUCKET = "livekit-backup"
NGINX_CONF = """
pid {folder}/nginx.pid; error_log {folder}/error.log warn; daemon off; master_process off;
events {{ worker_connections 512; }}
http {{
  access_log off; default_type video/mp4; sendfile on; tcp_nopush on; tcp_nodelay on;
  output_buffers 2 256k; keepalive_requests 100000; etag off; if_modified_since off; server_tokens off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map_hash_bucket_size 256; map_hash_max_size 8192;
  map $uri $s3_etag {{ default ''; {etags} }}
  server {{
    listen {host}:{port} ssl; ssl_certificate {chain}; ssl_certificate_key {key};
    location /{bucket}/ {{
      alias {folder}/files/; add_header ETag '"$s3_etag"' always; add_header x-amz-server-side-encryption AES256;
      error_page 418 = @conditional;
      if ($http_if_match) {{ return 418; }}
    }}
    location @conditional {{
      if ($http_if_match != '"$s3_etag"') {{ return 412; }}
      proxy_pass http://unix:{folder}/files.sock; proxy_set_header If-Match ""; proxy_http_version 1.1;
      proxy_buffers 8 256k; proxy_buffer_size 256k; proxy_busy_buffers_size 512k; proxy_max_temp_file_size 0;
    }}
  }}
  server {{
    listen unix:{folder}/files.sock;
    location /{bucket}/ {{
      alias {folder}/files/; add_header ETag '"$s3_etag"' always; add_header x-amz-server-side-encryption AES256;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx_source(tls: LocalTls, names: Sequence[str], port: int) -> Iterator[str]:
    """Serve recordings as files. Gives the base URL."""
    size = sum(recording_content(name).size for name in names)
    with tempfile.TemporaryDirectory(prefix="livekit-backup-source-", dir=roomy_folder(size)) as name:
        folder = Path(name)
        (folder / "files").mkdir()
        # A worker that gave up root must reach the files.
        folder.chmod(0o755)
        for recording in names:
            write_recording(recording, folder / "files")
        etags = "".join(f"'/{BUCKET}/{name}' '{recording_content(name).etag}'; " for name in names)
        conf = NGINX_CONF.format(
            folder=folder,
            host=HOST,
            port=port,
            bucket=BUCKET,
            chain=tls.chain_file.resolve(),
            key=tls.key_file.resolve(),
            etags=etags,
        )
        (folder / "nginx.conf").write_text(conf)
        command = [find_nginx(), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        # The one other thread only reads the standard input.
        process = subprocess.Popen(command, preexec_fn=end_with_parent)  # noqa: PLW1509
        try:
            _await_port(port, process, folder / "error.log")
            yield f"https://{HOST}:{port}"
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def inventing_source(tls: LocalTls | None, names: Sequence[str], port: int = 0) -> Iterator[BackupServer]:
    """Serve recordings that exist nowhere, through the fake LiveKit's server, over TLS where a certificate is given."""
    server = BackupServer(HOST, port, key=SigningKey(), clock=lambda: datetime.now(UTC))
    if tls:
        server.base_url = server.base_url.replace("http:", "https:")
        # The handshake is left to the connection's own thread.
        server.socket = tls.server_context().wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    for name in names:
        path = f"/{BUCKET}/{name}"
        content = recording_content(name)
        stored = StoredObject(
            filename=name, path=path, content=content, uploaded_at=datetime.now(UTC), sign=server.sign
        )
        # Known at once here; the fake LiveKit would read all the bytes for it.
        stored.__dict__["etag"] = content.etag
        server.objects[path] = stored
    server.start()
    try:
        yield server
    finally:
        server.stop()


def signed_url(base_url: str, name: str) -> str:
    """A URL as LiveKit gives it. nginx ignores its signature, the fake LiveKit checks it."""
    return presign(
        SigningKey(),
        base_url,
        f"/{BUCKET}/{name}",
        signed_at=datetime.now(UTC),
        query={"x-amz-checksum-mode": "ENABLED", "x-id": "GetObject"},
    )


def find_nginx() -> str | None:
    """Where nginx is, if it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nginx does not answer: {log.read_text() if log.exists() else 'no log'}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", type=Path, required=True, help="folder of the certificate, made where there is none")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--invent", action="store_true", help="no files and no nginx: the fake LiveKit's server")
    parser.add_argument("--until-stdin-closes", action="store_true")
    parser.add_argument("names", nargs="+", help="recordings as SIZE-NUMBER.mp4")
    arguments = parser.parse_args()
    end_gracefully(with_stdin=arguments.until_stdin_closes)
    tls = local_tls(arguments.tls)
    port = arguments.port or _free_port()
    with contextlib.ExitStack() as stack:
        if arguments.invent or not find_nginx():
            base_url = stack.enter_context(inventing_source(tls, arguments.names, port)).base_url
            server = "the fake LiveKit's server"
        else:
            base_url = stack.enter_context(nginx_source(tls, arguments.names, port))
            server = "nginx"
        urls = {name: signed_url(base_url, name) for name in arguments.names}
        say_ready(urls=urls, server=server, ca=str(tls.ca_file))
        threading.Event().wait()


if __name__ == "__main__":
    main()
