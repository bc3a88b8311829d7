"""The configuration files and start-up scripts of the embedded S3 server (Swift with s3api)."""

from __future__ import annotations

SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = livekit
swift_hash_path_suffix = backup
[storage-policy:0]
name = standard
default = yes
[swift-constraints]
# S3 bounds all user metadata together (2 KiB); Swift would refuse a single value over 256 bytes.
max_meta_value_length = 2048
"""

SERVER_CONF = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
bind_timeout = 5
user = {user}
swift_dir = {etc}
devices = {devices}
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
# One process each and none above it: eventlet interleaves the requests, one signal ends it.
workers = 0
# -v logs to stderr, but Swift also logs to syslog, always: the discard port spares the machine's own.
log_udp_host = 127.0.0.1
log_udp_port = 9
log_requests = false
# Swift's half second and one second are meant for idle machines. On two busy cores a
# slow answer would turn into an object that no listing shows, or into a 503.
conn_timeout = 10
node_timeout = 60
container_update_timeout = 60
"""

BACKEND_CONF = """\
[pipeline:main]
pipeline = healthcheck {name}-server
[app:{name}-server]
use = egg:swift#{name}
[filter:healthcheck]
use = egg:swift#healthcheck
"""

PROXY_PIPELINE = (
    "catch_errors gatekeeper healthcheck memory listing_formats bulk s3api tempauth copy slo dlo versioned_writes"
    " symlink"
)

# A memcached that happens to run here would carry state from one data directory into another; without any cache
# every request asks the account and the container server first. The proxy is one process, so its memory will do.
MEMORY_CACHE = """
import time
class MemoryCache:
    def __init__(self, app):
        self.app, self.kept = app, {}
    def __call__(self, env, start_response):
        env["swift.cache"] = self
        return self.app(env, start_response)
    def get(self, key, raise_on_error=False):
        value, until = self.kept.get(key, (None, 0))
        return value if until > time.monotonic() else None
    def set(self, key, value, serialize=True, time=0, **_):
        self.kept[key] = (value, _now() + (time or 3600))
    def delete(self, key, server_key=None):
        self.kept.pop(key, None)
_now = time.monotonic
def filter_factory(global_conf, **local_conf):
    return MemoryCache
"""

PROXY_CONF = """\
[pipeline:main]
pipeline = {pipeline} proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
# There is no second disk to turn to: a suppressed one would be an outage of a minute.
error_suppression_limit = 1000000
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
min_segment_size = 5242880
max_upload_part_num = 10000
[filter:memory]
paste.filter_factory = memory_cache:filter_factory
[filter:tempauth]
use = egg:swift#tempauth
allow_overrides = false
user_livekit_backup = {secret} .admin
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
# 10,000 parts of long keys outgrow the default 8 MiB.
max_manifest_size = 67108864
concurrency = 4
# Without an expirer nobody would ever free what is deleted later.
allow_async_delete = false
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
"""

BUILD_RINGS = """
import json, sys
from swift.common.ring import RingBuilder
for name, port in json.loads(sys.argv[2]).items():
    builder = RingBuilder(6, 1, 0)
    builder.add_dev(dict(id=0, region=1, zone=1, weight=1, ip="127.0.0.1", port=port, device="disk", meta=""))
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""

# Left to itself a server reads its constraints from /etc/swift before it looks at swift_dir.
RUN_SERVER = """
import sys
from importlib import import_module
from swift.common.utils import set_swift_dir
set_swift_dir(sys.argv[1])
sys.path.append(sys.argv[1])
main = import_module(sys.argv[2]).main
sys.argv[1:] = [sys.argv[3], "-v"]
main()
"""
