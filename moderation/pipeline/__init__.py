"""One shard from items to receipt: the only composition of sources, decoders, detectors and policy."""
