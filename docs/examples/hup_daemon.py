#!/usr/bin/env python3
"""A daemon that knows nothing of Rootcast: it reads its file at the start, and again on SIGHUP."""
import signal
import sys


def read(*_):
    with open(sys.argv[1]) as file:
        print("configured:", file.read().strip(), flush=True)


signal.signal(signal.SIGHUP, read)
read()
while True:
    signal.pause()
