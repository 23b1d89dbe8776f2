"""The command-line interface: one file per command, which parses arguments and prints results."""
