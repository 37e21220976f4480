"""Trust: where a result fails, for whom, why, and how sure it is of itself."""
