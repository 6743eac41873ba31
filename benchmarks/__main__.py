"""`python -m benchmarks`: the tables of `make bench`. The others (`fetch`, `ledger`) are called by name."""

from __future__ import annotations

from benchmarks import peer, questions, throughput

if __name__ == "__main__":
    throughput.main()
    peer.main()
    questions.main()
