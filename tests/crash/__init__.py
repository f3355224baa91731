"""kill -9 under load, hundreds of times (DESIGN.md#how-we-know): the real process on loopback.

starter       forks `appliance serve` from a process that has imported it already
load          submitters and testboxes on real sockets, and what they were told
test_kill     the rounds, and what must be true of the state after each
"""
