"""Clients under load, in one process: each writes numbers to a list of its own, each number once.

    load.py SECONDS_OF_PATIENCE KEY ADDRESS:PORT...      until its standard input ends; then prints one JSON object

Prints a line as soon as each client has had some replies.

Each client waits for its reply before it goes on. A number that was acknowledged must be in the list at the end, and
none may be there twice; one that got an error, or no reply, is never sent again.
"""

import json
import socket
import sys
import threading
import time

# Replies of each client before the load counts as under way.
UNDER_WAY = 100
# Pause between two commands of a client, seconds: load, not a race.
THINKS = 0.004


class Client(threading.Thread):
    def __init__(self, key, address, patience, over):
        super().__init__(daemon=True)
        self.key, self.address, self.patience, self.over = key, address, patience, over
        self.acknowledged, self.errors, self.closed, self.refused = [], [], 0, 0
        self.slowest = 0.0
        self.stream = None

    def run(self):
        number = 0
        while not self.over.is_set():
            if self.stream is None and not self.connect():
                time.sleep(0.05)
                continue
            number += 1
            began = time.monotonic()
            try:
                self.stream.sendall(command("RPUSH", self.key, str(number)))
                reply = self.line()
            except (OSError, EOFError):
                self.closed += 1
                self.stream.close()
                self.stream = None
                continue
            self.slowest = max(self.slowest, time.monotonic() - began)
            if reply.startswith(":"):
                self.acknowledged.append(number)
            else:
                self.errors.append(reply)
            time.sleep(THINKS)

    def connect(self):
        try:
            self.stream = socket.create_connection(self.address, self.patience)
            self.stream.settimeout(self.patience)
            self.rest = b""
            return True
        except OSError:
            self.refused += 1
            self.stream = None
            return False

    def line(self):
        while b"\r\n" not in self.rest:
            more = self.stream.recv(4096)
            if not more:
                raise EOFError
            self.rest += more
        line, self.rest = self.rest.split(b"\r\n", 1)
        return line.decode()


def command(*words):
    text = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    return text.encode()


def main():
    patience, key, *places = sys.argv[1:]
    over = threading.Event()
    clients = []
    for place in places:
        host, port = place.rsplit(":", 1)
        name = f"{key}:{host}"
        clients.append(Client(name, (host, int(port)), float(patience), over))
    for client in clients:
        client.start()
    while any(len(client.acknowledged) < UNDER_WAY for client in clients):
        time.sleep(0.02)
    print("under way", flush=True)
    sys.stdin.buffer.read()
    over.set()
    for client in clients:
        client.join(float(patience) + 5)
    print(json.dumps({
        client.key: {
            "acknowledged": client.acknowledged, "errors": client.errors, "closed": client.closed,
            "refused": client.refused, "slowest": round(client.slowest, 3),
        } for client in clients
    }))


main()
