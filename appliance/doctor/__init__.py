"""`appliance doctor`: checks a lab, and says what each finding means and how to fix it.

`look`, `facts`, `network`, `host` and `probe` gather facts; the pure modules judge them.
"""
