"""The tables of the console, and a function for each question or change."""
