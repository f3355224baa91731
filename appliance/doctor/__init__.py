"""`appliance doctor`: looks a lab over, and says of each finding what it means and what mends it.

`look`, `worlds`, `network`, `host` and `asking` touch the world; the others judge facts.
"""
