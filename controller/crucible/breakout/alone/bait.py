"""Listens where another pod can reach it, and says who came."""

import socket

PORT = 8080

with socket.create_server(("", PORT)) as server:
    print("listening", flush=True)
    while True:
        made, where = server.accept()
        made.close()
        print(f"came {where[0]}", flush=True)
