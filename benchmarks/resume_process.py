"""Recovers one recording into a store that gives no CRC64NVME back: ``python resume_process.py JOB``."""

from __future__ import annotations

import json
import sys

from engines import Job
from our_engine import ALL_CHECKS, abilities_found, open_engine

if __name__ == "__main__":
    move = open_engine(abilities_found(), ALL_CHECKS - {"destination_crc64nvme"})
    move(Job(**json.loads(sys.argv[1])))
