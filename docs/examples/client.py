#!/usr/bin/env python3
"""Reads a value from the agent of this host, and again whenever a generation changes its file."""
import http.client
import json
import socket
import sys
import time


class Agent(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("agent")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)  # a watch is sent something every 15 seconds
        self.sock.connect(self.path)


def value(agent, path, key):
    connection = Agent(agent)
    connection.request("GET", f"/v1/values/{path}?key={key}")
    answer = connection.getresponse()
    body = json.load(answer)
    if answer.status != 200:
        raise LookupError(body["error"])
    return body, answer.headers["X-Rootcast-Generation"]


def generations(agent):
    last = None
    while True:
        try:
            connection = Agent(agent)
            headers = {"Last-Event-ID": last} if last else {}
            connection.request("GET", "/v1/watch", headers=headers)
            for line in connection.getresponse():
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    last = str(event["generation"])
                    yield event["changed"]  # None: not known what changed
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(1)  # the agent was restarted: it goes on from `last`


if __name__ == "__main__":
    socket_path, file, key = sys.argv[1:]
    for changed in generations(socket_path):
        if changed is None or file in changed:
            print(*value(socket_path, file, key), flush=True)
