"""``make ui``: Airflow's UI with the demo's runs in it, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading

from scene import DAG_ID, Moment, airflow, embedded_s3, fake_livekit, make_recordings, record_unannounced


def main() -> int:
    """Start everything again as the last demo left it, and wait."""
    moment = Moment.last()
    if moment is None:
        print("There is no demo yet: `make demo` first.")
        return 1
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with embedded_s3() as s3, fake_livekit(moment) as livekit:
        make_recordings(livekit, moment.time)
        record_unannounced(livekit, moment.time)
        with airflow(moment, s3, livekit) as instance:
            print(f"Airflow:  {instance.url}/dags/{DAG_ID}  (no password)")
            print(f"S3:       {s3.endpoint_url}  access key {s3.access_key}  secret key {s3.secret_key}")
            print("Ctrl-C stops all of it.", flush=True)
            stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
