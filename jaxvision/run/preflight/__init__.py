"""What can be known to be wrong before the first step of a run, and what the run is about to do."""
