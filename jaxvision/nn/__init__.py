"""Networks and their parts: Flax Linen modules, channels last."""
