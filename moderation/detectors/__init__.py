"""Detectors: models or measurements that score frames, one file each; `base` defines the protocol."""
