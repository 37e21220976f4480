"""The table of the parity run."""

import parity_table


def test_a_run_replaces_the_cells_that_it_measured(tmp_path):
    path = tmp_path / "table.md"
    order = ["b", "a", "c"]
    parity_table.write(path, {"a": {"logits": "1e-12", "date": "one"}, "c": {"loss": "2e-3"}, "gone": {}}, order)
    parity_table.write(path, {"b": {"logits": "3e-12"}, "a": {"logits": "4e-12", "date": "two"}}, order)
    parity_table.write(path, {"c": {"logits, float32": "5e-7"}}, order)  # a run of the tests in float32 alone
    rows = parity_table.read(path)
    assert list(rows) == order
    assert rows["a"] == {**dict.fromkeys(parity_table.COLUMNS, "-"), "network": "a", "logits": "4e-12", "date": "two"}
    assert (rows["c"]["loss"], rows["c"]["logits, float32"]) == ("2e-3", "5e-7")
    assert [child.name for child in tmp_path.iterdir()] == ["table.md"]
    assert path.read_text().startswith("# ")
