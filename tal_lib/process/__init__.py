"""Processes that train and measure: a fork server, their environment and memory, and writing in the background.

Why a fork server: importing torch and the notebook machinery takes about five seconds, and a process that has already
computed is not clean to measure in. A process that has only imported is forked for every job: each job starts at once, with
nothing of another job in it, and can be killed with all that it has started.
"""
