"""Runs the check of annotations as its command does."""

from jaxvision.formats import check


def run(capsys, *arguments):
    """Exit status and what was printed."""
    status = check.main([str(each) for each in arguments])
    printed = capsys.readouterr()
    assert not printed.err
    return status, printed.out
