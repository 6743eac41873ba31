"""A small project to start from: a configuration, a policy, and cases whose verdicts are known."""

from __future__ import annotations

from pathlib import Path

from moderation.config.files import packaged_configs, resolve_config_path
from moderation.config.layers import read_layers
from moderation.errors import UsageError

CONFIG_FILE = "config.yaml"
POLICY_FILE = "policy.yaml"
CASES_FILE = "cases.yaml"
README_FILE = "README.md"

_CONFIG = """\
# Only what differs from {base}. `moderation config show --config {config} --origin` shows what holds, and who says it;
# without --origin, what each key means.
extends: {base}
policy: {policy}

stack:
  detectors:
    # An entry is merged into that of the same name; others are added; `remove: true` takes one away.
    - name: imagenet
      options:
        concepts:
          # `moderation concepts WORD` lists the names of classes.
          knife: [cleaver, letter opener]
"""

_CASES = """\
# Votes in, verdict out: `moderation policy test {policy} {cases}` says which of them the policy decides otherwise.
votes:
  {{open_nsfw.nsfw: 0.02, open_nsfw.sfw: 0.98,
   image_safety.nsfw: 0.03, image_safety.nsfl: 0.03, image_safety.sfw: 0.93}}
cases:
  - name: both networks are sure
    votes: {{open_nsfw.nsfw: 0.99, image_safety.nsfw: 0.93}}
    verdict: block
  - name: only one of them is
    votes: {{open_nsfw.nsfw: 0.99}}
    verdict: review
"""

_README = """\
# {name}

    export MODERATION_CONFIG={config}
    moderation doctor                                  what this machine lacks
    moderation backfill FOLDER --out out --dry-run     the plan, and what would stand in the way
    moderation backfill FOLDER --out out               verdicts; out/report.html
    moderation why out ITEM                            why one has its verdict
    moderation policy test {policy} {cases}      what must become of votes that you write down
    moderation rejudge out --policy {policy} --to again   another threshold, without pictures

`{config}` says only what differs from the packaged `{base}`. `{policy}` is a copy of the packaged policy: its comments
say where the numbers come from. Definitions of your own, for reviewers, go into `definitions/` beside it.
"""


def write_project(folder: Path, base: str = "default.yaml") -> list[Path]:
    """Write the files of a project; what is there already stays. base: the packaged configuration that it extends.

    Returns what was written. Raises UsageError for a base that is not there, or a folder that cannot be written to.
    """
    file = resolve_config_path(base)
    inside = file.is_relative_to(packaged_configs())
    named = str(file.relative_to(packaged_configs())) if inside else str(file.absolute())
    policy = read_layers(file).tree.get("policy") or resolve_config_path("default", kind="policies")
    names = {"base": named, "config": CONFIG_FILE, "policy": POLICY_FILE, "cases": CASES_FILE}
    texts = {
        CONFIG_FILE: _CONFIG.format(**names),
        POLICY_FILE: Path(policy).read_text(encoding="utf-8"),
        CASES_FILE: _CASES.format(**names),
        README_FILE: _README.format(name=folder.absolute().name, **names),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [path for name, text in texts.items() if _write_new(path := folder / name, text)]
    except OSError as error:
        raise UsageError(f"{folder}: can't be written to: {error.strerror or error}") from error


def _write_new(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
