"""A server that tells its clients the port of a second server, which it opens for them: as FTP does in passive mode."""

import socket
import sys

if sys.argv[1] == "serve":
    with socket.create_server(("", 7000)) as control:
        while True:
            client = control.accept()[0]
            with client, socket.create_server(("", 0)) as second:
                client.sendall(b"%d\n" % second.getsockname()[1])
                second.accept()[0].close()
else:
    host, times = sys.argv[2], int(sys.argv[3])
    refused = 0
    for _ in range(times):
        with socket.create_connection((host, 7000), timeout=20) as control:
            port = int(control.makefile().readline())
            try:
                socket.create_connection((host, port), timeout=20).close()
            except ConnectionRefusedError:
                refused += 1
                while True:
                    try:
                        socket.create_connection((host, port), timeout=20).close()
                        break
                    except ConnectionRefusedError:
                        pass
    print(refused, "refused")
