"""Work on what finished runs left: another policy, questions, distributions, duplicates. No cluster."""
