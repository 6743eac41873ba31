"""Batch moderation of images and videos: detectors vote on frames, a policy turns votes into verdicts."""

from __future__ import annotations

__version__ = "0.1.0"
