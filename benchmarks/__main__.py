"""`python -m benchmarks`: what README shows, measured anew, and its tables written from that: `make bench`.

The others (`fetch`, `ledger`, ...) are called by name. Half an hour on two quiet cores.
"""

from __future__ import annotations

from benchmarks import end_to_end, frame_cost, questions, readme

if __name__ == "__main__":
    end_to_end.main(["--stacks", "cnn", "default", "--items", "1000"])
    frame_cost.main()
    questions.main()
    readme.main()
