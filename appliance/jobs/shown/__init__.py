"""Views of jobs and testboxes for people and programs."""
