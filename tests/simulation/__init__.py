"""A whole lab in one process, in virtual time, from one seed (DESIGN.md#how-we-know).

determinism   one seed, one history: Trio's shuffles, and what else could differ
weather       what goes wrong in one run, drawn from the seed
server        the real appliance on a disk in memory: dies at any await, starts again
network       how boxes reach it: the doors by hand, or the whole HTTP stack
box           a testbox that obeys iPXE's rules, and the job it runs
people        who submit, cancel, ask again, hold and release boxes, drain, and give more time
oracle        what must be true, written down without looking at the code under test
lab           storm, calm, and the demands at the end: `simulate(seed)`
seeds         many of those runs, on all cores
mutants       bugs planted on purpose, which the oracle must find

SIM_SEED=123 pytest tests/test_simulation.py    that one run again
SIM_RUNS=1000 pytest tests/test_simulation.py   as many runs more
"""
