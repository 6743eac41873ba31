"""`python -m benchmarks`: the two tables of `make bench`. The others (`fetch`, `ledger`) are called by name."""

from __future__ import annotations

from benchmarks import peer, throughput

if __name__ == "__main__":
    throughput.main()
    peer.main()
