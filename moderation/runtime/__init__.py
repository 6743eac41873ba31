"""All that imports Ray: the workers, their two pools, the driver's loop, and the jobs that run on a cluster."""
