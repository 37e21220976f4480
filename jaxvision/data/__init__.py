"""From files to batches: order, decoding, streams.

One law holds for the whole room: a batch is a pure function of its step number. Training row r of step s stands at
position `s * batch_size + r`; position p belongs to epoch `p // n` of a source of n examples; which example stands
there, and how it is cropped, follow from `(seed, p)` alone. Batches run on across the borders of epochs.
"""
