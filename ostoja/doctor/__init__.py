"""`ostoja doctor`: checks a deployment, part by part, and says how to correct each problem."""
