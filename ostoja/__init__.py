"""`ostoja`, the command-line tool for on-call."""

__version__ = "0.1.0"
