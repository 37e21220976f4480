"""One process, many members: where the programs of runs differ in nothing but constants, these become inputs of one program."""
