"""Weights of other libraries, by strict name maps, into our variables."""
