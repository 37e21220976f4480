"""A run on disk and on devices, as library functions: no command line in any signature."""
