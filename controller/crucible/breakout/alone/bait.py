"""Listens where another pod can reach it, and says who came."""

import socket

PORT = 8080

BOTH = socket.has_dualstack_ipv6()
FAMILY = socket.AF_INET6 if BOTH else socket.AF_INET

with socket.create_server(("", PORT), family=FAMILY, dualstack_ipv6=BOTH) as server:
    print("listening", flush=True)
    while True:
        made, where = server.accept()
        made.close()
        print(f"came {where[0]}", flush=True)
