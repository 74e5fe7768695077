"""The process of one trial in Tune: it asks the stage scheduler and reports, nothing else.

It reserves next to nothing and imports no torch: neither does anything that it unpickles.
"""

from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle

from namd.distributed.source_identity import SourceError, SourceIdentity, require_same_source

EVENTS = "namd"
"""Key of a report's entries. A list, since Tune flattens mappings."""


def follow_trial(
    config: dict[str, Any], stage_scheduler: ActorHandle, source: SourceIdentity
) -> None:
    """Report what happens to one attempt at a trial until it ends or Tune stops it.

    Args:
        config: `run`, the stage scheduler's word for the attempt.
        stage_scheduler: The actor.
        source: The driver's namd; a process with another one ends the study.
    """
    try:
        require_same_source(source)
    except SourceError as error:
        tune.report({EVENTS: [{"kind": "end", "state": "unusable", "reason": str(error)}]})
        return
    cursor = 0
    while True:
        entries = ray.get(stage_scheduler.advance.remote(config["run"], cursor))
        cursor += len(entries)
        # Does not return where the scheduler's answer is to stop.
        tune.report({EVENTS: entries})
        if entries[-1]["kind"] == "end":
            return
