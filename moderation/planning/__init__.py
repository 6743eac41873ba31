"""Items to shards: how they are cut, ordered and sliced, and the plan that a resumed run reads again."""
