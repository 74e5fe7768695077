"""The process of one trial in Tune: it polls the stage scheduler and reports to Tune, nothing else.

It reserves almost nothing, and neither it nor anything that it unpickles imports torch.
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
        config: `run`, the attempt's name at the stage scheduler.
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
        # Does not return if the scheduler decides to stop.
        tune.report({EVENTS: entries})
        if entries[-1]["kind"] == "end":
            return
