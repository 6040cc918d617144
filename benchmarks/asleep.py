"""A job that sleeps and imports almost nothing: its run time beyond the sleep is the cost of scheduling."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

from jobflow import job


@job
def asleep(seconds: float) -> dict[str, Any]:
    """Sleep, and return times and place in the format of a chunk's output."""
    started = datetime.now(UTC)
    time.sleep(seconds)
    where = {
        "scheduler_job": os.environ.get("SLURM_JOB_ID"),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    return {"ran_on": where, "started": started.isoformat(), "created": datetime.now(UTC).isoformat()}
