"""Operators on one image; callers vmap them."""
