"""Metrics: Metric(observe, compute), with `condense` where rows are large.

`observe` runs on the device and gives one row an example; `condense` makes rows smaller on the host, where masks become run
lengths; `compute` is NumPy, in float64, and sees the rows of all valid examples of the whole data set, whatever the batch
size and the number of processes.
"""
