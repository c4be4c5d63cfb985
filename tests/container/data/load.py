"""A service's random work, by the seed in its argument: it forks, logs, writes, asks, and rests."""

import random
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

dice = random.Random(sys.argv[1])


def forks() -> None:
    for _ in range(dice.randrange(1, 5)):
        subprocess.run(["/bin/true"], check=True)


def logs() -> None:
    print("\n".join("x" * dice.randrange(200) for _ in range(dice.randrange(50))), flush=True)


def writes() -> None:
    with tempfile.TemporaryFile(dir="/run") as file:  # it never has a name
        file.write(dice.randbytes(dice.randrange(1 << 20)))


def asks() -> None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", 80), 5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        connection.recv(1 << 16)


def works() -> None:
    until = time.thread_time() + dice.random() / 20
    while time.thread_time() < until:
        pass


def rests() -> None:
    time.sleep(dice.random() / 5)


while True:
    dice.choice([forks, logs, writes, asks, works, rests, rests, rests])()
