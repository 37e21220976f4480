"""One process, many members: constants in which the programs of runs differ become inputs of one program."""
