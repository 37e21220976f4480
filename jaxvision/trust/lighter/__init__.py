"""Lighter models: from a run to another one that computes or stores less."""
