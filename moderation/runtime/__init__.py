"""All that imports Ray: the workers, the pool of them, the driver's loop, and the jobs that run on a cluster."""
