"""Items to shards: cutting, order, slices, and the plan that a resumed run reads again."""
