"""Benchmarks: every row is a ratio against something known, measured in the same run.

__main__    which rows, and the table
table       rows, medians, verdicts
process     the appliance and nginx as child processes on free ports
reader      clients that read and throw away
parked      thousands of boxes that wait, in one process
files       one large file, against nginx
archive     job.cgz, against find, cpio and gzip
submits     acknowledged submits per second, against SQLite and redis-server
lobby       submit to first script byte, and memory, with 3,000 parked boxes
storm       10,000 boxes whose waits end in one second
fleet       1,000 boxes that load, against nginx; 500 that send results
queue       one submit among 100,000 queued jobs and 5,000 parked boxes
boot        a whole boot, against a fixed script from dnsmasq and nginx
installed   an installed server: size, times, memory, each beside its aim
simulation  hours of a whole simulated lab that one second plays
"""
