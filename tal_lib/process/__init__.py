"""Processes that train and measure: fork server, environment and memory.

Importing torch and the notebook tools takes about five seconds. A process that has computed before is also
not clean enough for measurements. The fork server therefore only imports, and each job is a fork of it. A job
starts at once, contains nothing of another job, and can be killed with all its child processes.
"""
