"""From cells to jobs, and the processes that do them: on one machine or on SLURM."""
