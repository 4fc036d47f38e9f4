"""Processes that train and measure: fork server, environment and memory.

Why a fork server: importing torch and the notebook machinery takes about five seconds, and a process that has
computed before is not clean to measure in. The fork server only imports. Each job is a fork of it: it starts at
once, nothing of another job is in it, and it can be killed with everything that it has started.
"""
