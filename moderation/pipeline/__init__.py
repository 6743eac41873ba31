"""One shard from its items to its receipt; the one composition of sources, decoders, detectors and policy."""
