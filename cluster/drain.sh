#!/bin/sh
# preStop hook of every Ray container (moderation-drain): keep Ray alive while work in flight is finished.
#
# On a head: SIGTERM for the driver, which hands out no more shards, waits runtime.grace_s for those in flight, writes
# its summary and goes. On a worker: wait until its actor is gone, because the driver let it go; on a node that is taken
# away nobody does, and every second is used for judging. Nothing to wait for (a worker scaled down when idle): return at
# once. The bound is the pod's terminationGracePeriodSeconds.
#
# Arguments, for tests: patterns (grep -E) of one argument of the driver's and of the actors' command lines.
set -u
driver=${1:-'/bin/moderation$'}
actor=${2:-'^ray::ShardWorker'}

# /proc rather than pgrep, which a slim image has not; -z because arguments end with NUL. A pattern does not match the
# grep that looks for it: its own argument ends with "$", or begins with "^".
pids() {
    grep -lzaE -e "$1" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3
}

for pid in $(pids "$driver"); do
    kill -TERM "$pid" 2>/dev/null
done
while [ -n "$(pids "$driver")$(pids "$actor")" ]; do
    sleep 1
done
