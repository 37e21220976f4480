"""Export: a model with its preprocessing in files that other programs run, each run again before it is handed over."""
