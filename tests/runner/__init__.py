"""The runner's shell scripts, run for real against a small real server."""
