"""Detectors that read the votes or embeddings of others."""
