"""`ostoja doctor`: looks a deployment over, part by part, and says what to do for what it finds."""
