"""Votes to a verdict: checks, thresholds and rules. Pure: no clock, no file, no state; loads without torch."""
