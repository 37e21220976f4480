"""The table of what the parity run measured: one row a network, of which a run replaces the cells that it measured."""

from jaxvision.errors import write_atomically

COLUMNS = (
    *("network", "parameters", "input", "logits", "loss", "gradient", "statistics"),
    *("logits, float32", "compared with", "date"),
)
HEAD = """# Our networks against torchvision, timm and torch

Written by `python -m pytest -m parity` when all of it passes. Both sides have the same random weights, images and labels.
Largest relative errors: of the evaluation logits (over their largest), the loss, the gradient and the new running
statistics of one training pass (of the worst array, in norm; arrays with a norm below a millionth of the largest one's,
such as the biases before a normalisation, whose gradient is rounding, are measured by that millionth); in float64, and of
the logits in float32 for one of each family. A dash: there is nothing to compare, or it was not measured. A layer of
Flax's LSTM has one bias where torch has two, and one of its GRU four parts where torch has six: they only occur as sums.

"""


def read(path):
    """Rows by network: a dict of cells each."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]}


def write(path, rows, order):
    """Replace these cells, and keep the others; rows are in this order of networks, unknown ones are dropped."""
    before = read(path)
    merged = {name: {**before.get(name, {}), **rows.get(name, {}), "network": name} for name in {**before, **rows}}
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    lines += [[merged[name].get(column, "-") for column in COLUMNS] for name in order if name in merged]
    write_atomically(path, HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines))
