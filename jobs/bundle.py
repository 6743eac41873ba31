"""`moderation bundle`: stack, weights, prompts, policy and certificates under one hash."""

from __future__ import annotations

from moderation.pages.text import escaped

from .options import BundlesOption, ConfigOption, PolicyOption, SetOption, load_settings
from .printing import plain_console, print_line


def bundle_make(
    store: BundlesOption, config: ConfigOption = None, policy: PolicyOption = None, set_: SetOption = None
) -> None:
    """Write the bundle of a configuration into STORE and print its hash; the same content is the same bundle."""
    settings = load_settings(config, set_, policy=policy)

    from moderation.evaluation.bundles import make_bundle  # torch only once the call is right

    print_line(make_bundle(settings, store))


def bundle_list(store: BundlesOption) -> None:
    """List the bundles of STORE, and which were live when."""
    from moderation.evaluation.bundle_store import list_bundles, read_pointer

    pointer = read_pointer(store)
    console = plain_console(soft_wrap=True)
    for bundle_hash in list_bundles(store):
        console.print(f"{bundle_hash}{'  current' if pointer and pointer.bundle == bundle_hash else ''}")
    for change in pointer.history if pointer else ():
        console.print(f"{change.at:%Y-%m-%d %H:%M} {change.bundle[:12]} {escaped(change.reason)}")
