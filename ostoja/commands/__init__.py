"""One module per subject; a command calls the API and prints the answer."""
