"""The machine as this process may use it: its cores, its memory, its folders, what it prints to."""
