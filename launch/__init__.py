"""Sweeps, ablations and their reports; runs as local processes or under a scheduler. Nothing in jaxvision imports it."""
