"""Shows the addresses of connections, as the socket calls of both ends give them.

    family.py serve ADDRESS PORT [only6]     answers each connection with its getsockname and what accept said
    family.py ask ADDRESS PORT [only6]       prints getsockname, getpeername and the answer, one to a line
    family.py names NAME [FLAG]...           prints what getaddrinfo finds: family and address
"""
import socket
import sys


def stream(address, only6):
    s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET)
    if only6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return s


def check(s, only6):
    """The option stays as it was set."""
    if s.family == socket.AF_INET6:
        got = s.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), s.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 2)
        assert got == (len(only6), bytes([len(only6), 0])), got


def text(name):
    if len(name) == 4:  # an IPv6 one: flow information and scope are always 0
        assert name[2:] == (0, 0), name
        return '[%s]:%d' % name[:2]
    return '%s:%d' % name


def serve(address, port, *only6):
    s = stream(address, only6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, int(port)))
    s.listen()
    check(s, only6)
    while True:
        conn, peer = s.accept()
        conn.sendall(f'{text(conn.getsockname())} {text(peer)}'.encode())
        assert peer == conn.getpeername(), (peer, conn.getpeername())
        conn.close()


def ask(address, port, *only6):
    s = stream(address, only6)
    s.settimeout(20)
    s.connect((address, int(port)))
    check(s, only6)
    print(text(s.getsockname()), text(s.getpeername()), sep='\n')
    print(s.recv(1000).decode())


def names(name, *flags):
    found = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM, flags=sum(getattr(socket, f) for f in flags))
    for family, _, _, _, address in sorted(found):
        print(family.name, address[0])


globals()[sys.argv[1]](*sys.argv[2:])
