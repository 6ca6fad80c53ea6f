"""Files and disks: who may open a directory, how much room there is, what an error means."""
