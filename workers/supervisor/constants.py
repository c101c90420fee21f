"""Names and numbers that several modules of the supervisor share."""

from __future__ import annotations

import errno

TYPE_CHECKING = False  # importing typing costs 3 ms of each start
if TYPE_CHECKING:
    from typing import Any, Dict

    Json = Dict[str, Any]

STEPS = ("prepare", "agent", "validate", "deliver")
STREAMS = ("stdout", "stderr")
# Defaults of a request's limits. Wall clock and silence are those of the agent. validation_secs is for all commands of
# the validation together, git_secs for each git process, hook_secs for each hook. final_secs is how long a CLI may take
# to exit after its final event. Of each log that many bytes of its beginning and of its end are kept.
# After a checkout that took longer than spare_secs the next one is made in advance.
LIMITS = {"wall_secs": 3600, "silence_secs": 600, "grace_secs": 10, "validation_secs": 600, "git_secs": 600,
          "hook_secs": 300, "final_secs": 30, "spare_secs": 1.0,
          "log_head_bytes": 32 << 20, "log_tail_bytes": 32 << 20}  # fmt: skip
END_REASONS = {
    "cancelled": "the run was cancelled",
    "lost": "the supervisor received SIGTERM without a cancel request: the host may be shutting down",
    "timed_out": "the agent was still working after {wall_secs} s and was ended",
    "silent": "the agent printed nothing for {silence_secs} s and was ended",
}
ABANDONED_SECS = 3  # a folder without state.json and lock for so long was left by a start that died
WAIT_SECS = 10  # for another process to do its part
IDLE_SECS = 600  # a session without a request for so long ends; the caller closes it earlier
RESERVE_BYTES = 64 << 10  # kept free in a run's folder, so that its result can be written to a full disk
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
