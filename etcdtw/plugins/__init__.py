"""The faces that twistd shows: options and makeService, nothing else."""
