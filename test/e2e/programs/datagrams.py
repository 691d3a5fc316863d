"""Prints what corner cases of datagram sockets give. The same under AppSwitch as without, on one's own loopback."""
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import threading
import time

HOST = '127.0.0.1'
IP_PKTINFO, IP_RECVTTL, UDP_SEGMENT, UDP_GRO, MSG_WAITFORONE = 8, 12, 103, 104, 0x10000
CASES = []
libc = ctypes.CDLL(None, use_errno=True)


def case(f):
    CASES.append(f)
    return f


def outcome(f, *args):
    try:
        r = f(*args)
        return 'ok' if r is None else r
    except TimeoutError:
        return 'timeout'
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))


def udp(family=socket.AF_INET, bound=True, port=0):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if bound:
        s.bind((HOST if family == socket.AF_INET else '::1', port))
    return s


def pair():
    a, b = udp(), udp()
    return a, b, b.getsockname()


def ready(s):
    return len(select.select([s], [], [], 5)[0])


@case
def sizes_and_flags():
    a, b, to = pair()
    a.sendto(b'0123456789', to)
    yield ready(b), b.recvmsg(4, 0, socket.MSG_PEEK)[:3:2]
    yield b.recvmsg(4, 0, socket.MSG_PEEK | socket.MSG_TRUNC)[2] & socket.MSG_TRUNC
    yield b.recvfrom(4, socket.MSG_PEEK)[0], b.recvfrom(20)[0]
    a.sendto(b'', to)
    yield ready(b), b.recvfrom(5) == (b'', a.getsockname())
    a.sendmsg([], [], 0, to)
    yield ready(b), b.recvmsg(5)[0]
    a.sendmsg([b'x', b'', b'yz'], [], 0, to)
    one, two = bytearray(2), bytearray(5)
    yield ready(b), b.recvmsg_into([one, two])[0], one, two
    yield outcome(b.recvfrom, 1, socket.MSG_DONTWAIT), outcome(b.recvmsg, 1, 0, socket.MSG_DONTWAIT)
    yield outcome(a.sendto, b'x' * 65508, to), outcome(a.sendto, b'x' * 65507, to), len(b.recvfrom(70000)[0])
    yield outcome(a.sendto, b'x', socket.MSG_OOB, to)
    b.setblocking(False)
    yield outcome(b.recvfrom, 1)
    b.settimeout(None)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 200000))
    began = time.time()
    yield outcome(b.recvfrom, 1), 0.15 < time.time() - began < 2


@case
def waiting():
    a, b, to = pair()
    threading.Timer(0.2, a.sendto, (b'late', to)).start()
    yield b.recvfrom(9)[0]
    threading.Timer(0.2, a.sendmsg, ([b'later'], [], 0, to)).start()
    yield b.recvmsg(9)[0]
    signal.signal(signal.SIGALRM, lambda *_: a.sendto(b'by signal', to))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield b.recvfrom(20)[0]
    e = select.epoll()
    e.register(b, select.EPOLLIN | select.EPOLLET)
    a.sendto(b'1', to), a.sendto(b'2', to)
    yield len(e.poll(5)), b.recvfrom(9)[0], len(e.poll(0)), b.recvfrom(9)[0]


@case
def connecting():
    a, b, to = pair()
    c = udp(bound=False)
    yield outcome(c.getpeername), c.getsockname(), outcome(c.send, b'x')
    c.connect(to)
    yield c.getpeername() == to, c.getsockname()[0]
    c.send(b'1')
    yield b.recvfrom(9) == (b'1', c.getsockname())
    a.sendto(b'stranger', c.getsockname())
    b.sendto(b'peer', c.getsockname())
    yield ready(c), c.recvfrom(9) == (b'peer', to), outcome(c.recvfrom, 9, socket.MSG_DONTWAIT)
    c.connect(a.getsockname())
    yield c.getpeername() == a.getsockname()
    c.sendto(b'past the peer', to)
    yield b.recvfrom(20)[0]
    port = c.getsockname()[1]
    unspec = struct.pack('=H14x', 0)
    yield libc.connect(c.fileno(), unspec, 16), outcome(c.getpeername), c.getsockname()
    yield c.sendto(b'2', to), b.recvfrom(9)[0], c.getsockname()[0]
    d = udp()
    where = d.getsockname()
    yield outcome(d.connect, to), libc.connect(d.fileno(), unspec, 16), d.getsockname()[0]
    yield outcome(a.listen), outcome(a.bind, (HOST, 0)), outcome(a.accept)


@case
def refused():
    gone = udp()
    to = gone.getsockname()
    gone.close()
    c = udp(bound=False)
    c.connect(to)
    yield outcome(c.send, b'x')
    time.sleep(0.2)
    yield errno.errorcode.get(c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    yield outcome(c.send, b'x')
    c.settimeout(2)
    yield outcome(c.recv, 1)
    yield outcome(c.send, b'x')
    time.sleep(0.2)
    yield outcome(c.recvmsg, 1)


@case
def bad_arguments():
    a, b, to = pair()
    at = ctypes.create_string_buffer(socket.inet_aton(HOST))
    sa = struct.pack('=H', socket.AF_INET) + struct.pack('!H', to[1]) + socket.inet_aton(HOST) + bytes(8)
    send = lambda *args: (libc.sendto(a.fileno(), *args), errno.errorcode.get(ctypes.get_errno()))
    yield send(b'x', 1, 0, ctypes.c_void_p(8), 16)[1]
    yield send(ctypes.c_void_p(8), 1, 0, sa, 16)[1]
    yield send(b'x', 1, 0, sa, 8)[1]
    yield send(b'x', 1, 0, b'\x0a\0' + sa[2:], 16)[1]
    yield send(b'x', 1, 0, sa[:2] + b'\0\0' + sa[4:], 16)[1]
    a.sendto(b'abc', to)
    ready(b)
    name, room = ctypes.create_string_buffer(b'\xff' * 16, 16), ctypes.c_uint(4)
    buf = ctypes.create_string_buffer(8)
    yield libc.recvfrom(b.fileno(), buf, 8, 0, name, ctypes.byref(room)), room.value, name.raw[:2], name.raw[4:8]
    yield libc.recvmsg(b.fileno(), ctypes.c_void_p(8), 0), errno.errorcode.get(ctypes.get_errno())
    yield libc.sendmsg(b.fileno(), ctypes.c_void_p(8), 0), errno.errorcode.get(ctypes.get_errno())
    yield outcome(udp(bound=False).sendto, b'x', ('224.0.0.251', 5353))


@case
def ancillary():
    a, b, to = pair()
    b.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    b.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    a.sendto(b'1', to)
    data, control, flags, sender = b.recvmsg(9, 200)
    yield data, flags, sender == a.getsockname(), sorted((l, t, d.hex()) for l, t, d in control)
    a.sendto(b'2', to)
    data, control, flags, _ = b.recvmsg(9, socket.CMSG_SPACE(12))
    yield data, flags & socket.MSG_CTRUNC, [(l, t, len(d)) for l, t, d in control]
    a.sendto(b'3', to)
    yield b.recvmsg(9, 8)[1:3]
    spec = lambda ip: struct.pack('=I4s4s', 0, socket.inet_aton(ip), bytes(4))
    c = udp(bound=False)
    yield outcome(c.sendmsg, [b'4'], [(socket.IPPROTO_IP, IP_PKTINFO, spec(HOST))], 0, to), b.recvmsg(9)[0]
    yield outcome(c.sendmsg, [b'5'], [(socket.IPPROTO_IP, IP_PKTINFO, spec('192.0.2.77'))], 0, to)
    yield outcome(c.sendmsg, [b'5'], [(socket.IPPROTO_IP, socket.IP_TTL, struct.pack('i', 7))], 0, to)
    yield [d for _, t, d in b.recvmsg(9, 200)[1] if t == socket.IP_TTL]
    yield outcome(c.sendmsg, [b'6'], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack('H', 0))], 0, to), b.recvmsg(9)[0]
    yield outcome(c.sendmsg, [b'aabbc'], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack('H', 2))], 0, to)
    yield [b.recvfrom(9)[0] for _ in range(3)]
    yield outcome(c.sendmsg, [b'7'], [(socket.IPPROTO_IP, 99, b'1234')], 0, to)
    b.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    c.sendmsg([b'aabbc'], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack('H', 2))], 0, to)
    yield b.recvfrom(9)[0]


class iovec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]


class msghdr(ctypes.Structure):
    _fields_ = [('name', ctypes.c_void_p), ('namelen', ctypes.c_uint), ('iov', ctypes.POINTER(iovec)), ('iovlen', ctypes.c_size_t),
                ('control', ctypes.c_void_p), ('controllen', ctypes.c_size_t), ('flags', ctypes.c_long), ('len', ctypes.c_long)]


def messages(*payloads):
    bufs = [ctypes.create_string_buffer(p, max(len(p), 1)) for p in payloads]
    vec = (msghdr * len(bufs))()
    for h, b, p in zip(vec, bufs, payloads):
        h.iov, h.iovlen = ctypes.pointer(iovec(ctypes.addressof(b), len(p))), 1
    return vec, bufs


@case
def several_at_once():
    a, b, to = pair()
    a.connect(to)
    out, _ = messages(b'one', b'', b'three')
    yield libc.sendmmsg(a.fileno(), out, 3, 0), [h.len for h in out]
    ready(b)
    got, bufs = messages(b'12345', b'12345', b'12', b'12345')
    yield libc.recvmmsg(b.fileno(), got, 4, socket.MSG_DONTWAIT, None), [h.len for h in got[:3]], [h.flags for h in got[:3]]
    yield bufs[0].raw, bufs[2].raw
    yield libc.recvmmsg(b.fileno(), got, 4, socket.MSG_DONTWAIT, None), errno.errorcode.get(ctypes.get_errno())
    a.send(b'x')
    yield libc.recvmmsg(b.fileno(), got, 4, MSG_WAITFORONE, None)
    limit = (ctypes.c_long * 2)(0, 100000000)
    for delay in 0, 0.3:
        threading.Timer(delay, a.send, (b'y',)).start()
    yield libc.recvmmsg(b.fileno(), got, 4, 0, limit), list(limit)
    bad = (ctypes.c_long * 2)(0, 1000000000)
    yield libc.recvmmsg(b.fileno(), got, 4, 0, bad), errno.errorcode.get(ctypes.get_errno())
    yield libc.recvmmsg(b.fileno(), got, 0, 0, None), libc.sendmmsg(a.fileno(), out, 0, 0)


@case
def groups():
    s = udp(bound=False)
    for level, option, value in (
            (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton('224.0.0.251') + bytes(4)),
            (socket.IPPROTO_IP, 39, socket.inet_aton('232.1.1.1') + bytes(4) + socket.inet_aton('192.0.2.1')),
            (socket.IPPROTO_IP, 42, bytes(8) + struct.pack('=H2x4s120x', socket.AF_INET, socket.inet_aton('224.0.0.251')))):
        yield outcome(s.setsockopt, level, option, value)
    t = udp(socket.AF_INET6, bound=False)
    yield outcome(t.setsockopt, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, 'ff02::fb') + bytes(4))


@case
def both_families():
    s = udp(socket.AF_INET6, bound=False)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    s.bind(('::', 0))
    c = udp()
    c.sendto(b'4', (HOST, s.getsockname()[1]))
    data, control, _, sender = s.recvmsg(9, 200)
    yield data, sender[0], sender[1] == c.getsockname()[1], [(l, t, d.hex()) for l, t, d in control]
    yield s.sendto(b'back', sender), c.recvfrom(9)[0]
    yield s.sendmsg([b'again'], [(l, t, d) for l, t, d in control if l == socket.IPPROTO_IPV6], 0, sender), c.recvfrom(9)[0]


@case
def sharing():
    a = udp()
    port = a.getsockname()[1]
    yield outcome(udp(bound=False).bind, (HOST, port)), outcome(udp(bound=False).bind, ('', port))
    b, c = udp(bound=False), udp(bound=False)
    for s in b, c:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    b.bind((HOST, 0))
    c.bind(b.getsockname())
    a.sendto(b'to one', b.getsockname())
    yield len(select.select([b, c], [], [], 5)[0])


@case
def passing():
    a, b, to = pair()
    low = os.dup2(b.fileno(), 60)
    d = socket.socket(fileno=low)
    a.sendto(b'1', to)
    yield d.recv(9)
    a.sendto(b'2', to)
    data, _, _, sender = d.recvmsg(9)
    yield data, d.sendmsg([b'back'], [], 0, sender), a.recvfrom(9)[0]
    left, right = socket.socketpair()
    socket.send_fds(left, [b'x'], [b.fileno()])
    e = socket.socket(fileno=socket.recv_fds(right, 1, 1)[1][0])
    a.sendto(b'3', to)
    yield e.recvfrom(9) == (b'3', a.getsockname())


for c in CASES:
    for i, r in enumerate(c()):
        print(c.__name__, i, r)
