"""The world outside: one file for each kind of input, one importer for each native library."""
