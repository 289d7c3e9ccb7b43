"""`ostoja`, the command-line tool of the person on duty."""
