"""Prints what corner cases of the socket calls give. The same under AppSwitch as without, on one's own loopback."""
import array
import errno
import os
import select
import signal
import socket
import struct
import threading
import time

HOST = '127.0.0.1'
CASES = []


def case(f):
    CASES.append(f)
    return f


def outcome(f, *args):
    try:
        r = f(*args)
        return 'ok' if r is None else r
    except socket.timeout:
        return 'timeout'
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))


def listener(backlog=16, **options):
    s = socket.socket(options.get('family', socket.AF_INET))
    s.bind(('::' if s.family == socket.AF_INET6 else HOST, 0))
    s.listen(backlog)
    return s


def client(s, blocking=True):
    c = socket.socket()
    c.setblocking(blocking)
    c.connect((HOST, s.getsockname()[1]))
    return c


@case
def connect_states():
    s = listener()
    c = client(s)
    closed = socket.socket()
    closed.bind((HOST, 0))
    refused = closed.getsockname()
    yield outcome(c.connect, s.getsockname())              # EISCONN
    yield outcome(s.connect, s.getsockname())              # a listening socket
    d = socket.socket()
    yield outcome(d.connect, refused)                      # bound, not listening
    yield outcome(d.connect, s.getsockname())              # the same socket again
    yield outcome(d.getpeername) == s.getsockname()
    e = socket.socket()
    yield outcome(e.getpeername), outcome(e.getsockname), outcome(e.recv, 1), outcome(e.send, b'x')
    yield outcome(e.accept), outcome(e.listen, 1), outcome(e.getsockname)[0]
    yield outcome(e.bind, (HOST, 0))                       # it has an address by now


@case
def connect_without_waiting():
    s = listener()
    c = socket.socket()
    c.setblocking(False)
    first = c.connect_ex(s.getsockname())
    yield first in (0, errno.EINPROGRESS)
    yield len(select.select([], [c], [], 5)[1])
    yield c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield errno.errorcode.get(c.connect_ex(s.getsockname()), 0) in (0, 'EISCONN')
    s.close()
    d = socket.socket()
    d.setblocking(False)
    r = d.connect_ex(s_address)
    if r == errno.EINPROGRESS:
        select.select([], [d], [], 5)
        r = d.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield errno.errorcode[r]


unused = socket.socket()
unused.bind((HOST, 0))
s_address = unused.getsockname()


@case
def accept_kinds():
    s = listener()
    s.setblocking(False)
    yield outcome(s.accept)
    s.settimeout(0.1)
    yield outcome(s.accept)
    c = client(s)
    a, address = s.accept()
    yield address == c.getsockname(), a.getpeername() == c.getsockname(), a.getsockname() == c.getpeername()
    yield a.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    # one that is reset before it is accepted
    c = client(s)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    c.close()
    time.sleep(0.05)
    a, _ = s.accept()
    yield outcome(a.recv, 1), outcome(a.getpeername)


@case
def accept_ended_by_shutdown():
    s = listener()
    result = []
    t = threading.Thread(target=lambda: result.append(outcome(s.accept)))
    t.start()
    time.sleep(0.2)
    s.shutdown(socket.SHUT_RDWR)
    t.join(10)
    yield result
    yield outcome(s.accept)
    yield outcome(s.listen, 5)


@case
def accept_in_children():
    s = listener()
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            c, _ = s.accept()
            c.sendall(b'%d' % os.getpid())
            os._exit(0)
        children.append(pid)
    got = [int(client(s).makefile().read()) for _ in range(3)]
    yield sorted(got) == sorted(children)
    yield [os.waitpid(p, 0)[1] for p in children]


@case
def interrupted():
    s = listener()
    hits = []
    signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    s.settimeout(None)
    threading.Timer(0.5, lambda: client(s)).start()
    a, _ = s.accept()
    signal.setitimer(signal.ITIMER_REAL, 0)
    yield len(hits) > 3, a.fileno() > 0


@case
def passed_to_a_child():
    s = listener()
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        fds = array.array('i')
        _, extra, _, _ = there.recvmsg(1, socket.CMSG_LEN(4))
        fds.frombytes(extra[0][2][:4])
        mine = socket.socket(fileno=fds[0])
        c, _ = mine.accept()
        c.sendall(b'child')
        os._exit(0)
    here.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])
    address = s.getsockname()
    s.close()
    yield socket.create_connection(address).makefile().read()
    os.waitpid(pid, 0)
    yield outcome(socket.create_connection, address)


@case
def addresses():
    s = socket.socket()
    yield outcome(s.bind, ('203.0.113.77', 0)), outcome(s.bind, ('127.0.0.2', 0)), outcome(s.getsockname)[0]
    six = socket.socket(socket.AF_INET6)
    six.bind(('::', 0))
    six.listen()
    c = socket.create_connection((HOST, six.getsockname()[1]))
    a, address = six.accept()
    yield address[0], a.getsockname()[0], c.getpeername()[0]
    only = socket.socket(socket.AF_INET6)
    only.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    only.bind(('::', 0))
    only.listen()
    yield outcome(socket.create_connection, (HOST, only.getsockname()[1]))
    yield outcome(socket.create_connection, ('0.0.0.0', six.getsockname()[1])).getpeername()[0]
    yield outcome(socket.socket(socket.AF_INET6).connect, ('::1', six.getsockname()[1]))
    mapped = socket.socket(socket.AF_INET6)
    yield outcome(mapped.connect, ('::ffff:127.0.0.1', six.getsockname()[1])), mapped.getsockname()[0]


@case
def reuse():
    group = []
    for _ in range(3):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind((HOST, group[0].getsockname()[1] if group else 0))
        s.listen()
        group.append(s)
    yield len({s.getsockname() for s in group})
    connections = [client(group[0]) for _ in range(60)]
    time.sleep(0.1)
    yield len(select.select(group, [], [], 5)[0])
    yield len(connections)
    other = socket.socket()
    yield outcome(other.bind, group[0].getsockname())


@case
def datagrams():
    a, b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    a.bind((HOST, 0))
    b.bind((HOST, 0))
    a.sendto(b'one', b.getsockname())
    data, source = b.recvfrom(100)
    yield data, source == a.getsockname()
    b.connect(a.getsockname())
    yield b.getpeername() == a.getsockname(), b.send(b'two'), a.recv(100)
    yield outcome(b.listen, 1), outcome(b.accept)
    b.settimeout(0.05)
    yield outcome(b.recv, 1)
    c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    c.connect(s_address)
    c.settimeout(5)
    c.send(b'x')
    yield outcome(c.recv, 1)


@case
def wrong_arguments():
    s = socket.socket()
    yield outcome(socket.socket, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP)
    yield outcome(socket.socket, socket.AF_INET, 99)
    yield outcome(socket.fromfd, 999, socket.AF_INET, socket.SOCK_STREAM)
    yield s.connect_ex((HOST, 0)) in (errno.ECONNREFUSED, errno.EADDRNOTAVAIL)
    yield outcome(s.shutdown, socket.SHUT_RDWR)


for f in CASES:
    for i, value in enumerate(f()):
        print(f.__name__, i, value)
