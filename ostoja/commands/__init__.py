"""One module for each subject of operations; a command calls the API and prints the answer."""
