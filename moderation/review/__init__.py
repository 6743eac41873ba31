"""Review by people: the queue, claims, decisions, and the page on which reviewers decide."""
