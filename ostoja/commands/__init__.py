"""One module for each thing that an ops person thinks of; a command is a call and its answer."""
