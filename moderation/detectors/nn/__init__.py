"""Shared by the detectors' networks: layers that are fast on a CPU, and threads."""
