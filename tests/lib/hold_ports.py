"""Holds free TCP ports of 127.0.0.1 for servers that are yet to come: `hold_ports.py COUNT` prints them, and ends by a signal.

A port that is only found free is somebody else's a moment later. One that is bound here, and not listened on, is given to
nobody who asks for any port, and can be listened on by whoever asks for it by its number with SO_REUSEADDR, as servers do.
"""
import signal
import socket
import sys

held = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in held:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held), flush=True)
while True:
    signal.pause()
