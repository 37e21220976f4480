"""Metrics: Metric(observe, compute).

`observe` runs on the device and gives one row an example; `compute` is NumPy, in float64, and sees the rows of all valid
examples of the whole data set, whatever the batch size and the number of processes.
"""
