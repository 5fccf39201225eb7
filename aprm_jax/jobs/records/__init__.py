"""One module a job: its settings, what they must be, what a stage starts from.

A module here is found by itself. It defines `JOB`, and imports nothing that starts
JAX: the command line reads all of them before it knows what to run.
"""
