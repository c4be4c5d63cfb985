"""Answer each connection on the socket that PID 1 hands over; end between two of them."""

import os
import select
import signal
import socket
from contextlib import suppress

listening = socket.socket(fileno=3)  # sd_listen_fds(3)
told, tell = os.pipe()
os.set_blocking(tell, False)
signal.set_wakeup_fd(tell)
signal.signal(signal.SIGTERM, lambda *_: None)
while told not in select.select([listening, told], [], [])[0]:
    connection, _ = listening.accept()
    with connection, suppress(ConnectionError):  # who asked has given up
        connection.sendall(b"served\n")
