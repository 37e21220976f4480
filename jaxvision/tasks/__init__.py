"""One paper, one file: each makes a Task from a network."""
