"""What surrounds the work: the device, its diagnosis, folders and progress."""
