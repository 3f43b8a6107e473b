"""Jobs for cells, and the processes that run them, on one machine or on SLURM."""
