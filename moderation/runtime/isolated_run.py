"""`python -m moderation.runtime.isolated_run PLAN CONFIG POLICY THREADS SECONDS`: judge a few items, and perhaps die.

The worker reads how it ended from the exit status: that names the signal, which Ray does not say.
"""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path

from moderation.config.model import Config
from moderation.pipeline.items import moderate_items
from moderation.pipeline.pools import make_pools
from moderation.planning.plan import decode_shards
from moderation.policy.bind import bind
from moderation.policy.model import Policy
from moderation.runtime.worker import set_threads
from moderation.scoring.build import build_stack


def main(plan: str, config_file: str, policy_file: str, threads: str, seconds: str) -> None:
    """Moderate the items of a plan; nothing is written."""
    config = Config.model_validate_json(Path(config_file).read_text(encoding="utf-8"))
    set_threads(int(threads))
    stack = build_stack(config)
    stack.load()
    rules = Policy.model_validate_json(Path(policy_file).read_text(encoding="utf-8"))
    policy = bind(rules, stack.labels, gated=stack.gated, disabled=stack.disabled)
    pools = make_pools(config, 1)
    # Its own end, should the worker that waits for it be gone.
    signal.alarm(max(1, math.ceil(float(seconds))))
    for shard in decode_shards(Path(plan).read_bytes()):
        for _ in moderate_items(shard.items, config=config, stack=stack, policy=policy, pools=pools):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:6])
