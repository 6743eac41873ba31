#!/bin/sh
# Apply an overlay, unless something in it still says what only you can say: `cluster/apply.sh cluster/overlays/site`.
# With --check it only looks. Rendered by kubectl, or by the program in $KUSTOMIZE (default: kubectl kustomize).
set -eu

check=no
if [ "${1:-}" = "--check" ]; then
    check=yes
    shift
fi
if [ $# -ne 1 ] || [ ! -f "$1/kustomization.yaml" ]; then
    echo "usage: cluster/apply.sh [--check] OVERLAY   (a folder with a kustomization.yaml)" >&2
    exit 2
fi

rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
# Not quoted: a command and its argument.
# shellcheck disable=SC2086
${KUSTOMIZE:-kubectl kustomize} "$1" > "$rendered"

# What the base and the example put where a site's own names belong.
placeholders='your-registry|your-media|your-moderation|example-media|example-moderation|ACCOUNT:role/NAME'
if grep -nE "$placeholders" "$rendered" >&2; then
    echo "$1: nothing was applied: the lines above hold placeholders." >&2
    echo "Say in $1/kustomization.yaml what is yours: image, SOURCE, BACKFILL_OUT, NIGHTLY_OUT, SMOKE_OUT, LEDGER." >&2
    exit 2
fi
# An image without a registry is one that is loaded by hand, as in `dev`.
if [ "$check" = yes ]; then
    echo "$1: no placeholders"
else
    kubectl apply -f "$rendered"
fi
