"""What the detectors' networks share: layers that are quick on a CPU, and threads."""
