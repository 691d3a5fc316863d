"""Makes one call of each kind in a thread of its own: calls.py DIR

Some wait in the agent already when it dies; the others are made when DIR/down is there. For each it prints the call, the
error, and when it ended. When DIR/up is there it uses the same sockets again, prints "works" or what doesn't, and ends.
"""
import errno
import os
import socket
import sys
import threading
import time

directory = sys.argv[1]
lock = threading.Lock()
threads = []


def say(*words):
    with lock:
        print(*words, flush=True)


def wait_for(name):
    while not os.path.exists(os.path.join(directory, name)):
        time.sleep(0.02)


def call(name, f, *args, waiting=False):
    """Waiting calls begin at once."""
    def run():
        if not waiting:
            wait_for('down')
        try:
            r = f(*args)
            result = f'ok:{r!r}'.replace(' ', '')
        except OSError as e:
            result = errno.errorcode.get(e.errno, str(e)).replace(' ', '')
        say(name, result, time.time())
    t = threading.Thread(target=run)
    threads.append(t)
    t.start()


def listener(backlog=16):
    s = socket.socket()
    s.bind(('127.0.0.1', 0))
    s.listen(backlog)
    return s


def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('127.0.0.1', 0))
    return s


fresh = [socket.socket() for _ in range(4)]
bound = socket.socket()
bound.bind(('127.0.0.1', 0))
server = [listener() for _ in range(4)]
client = socket.create_connection(server[0].getsockname())
accepted, _ = server[0].accept()
datagrams = [udp() for _ in range(6)]
names = [d.getsockname() for d in datagrams]
nonblocking = listener()
nonblocking.setblocking(False)

# Nobody accepts: when the queue is full, further connects wait for an answer to their SYN.
full = listener(0)
fill = []
for _ in range(4):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(full.getsockname())
    fill.append(s)
time.sleep(0.2)

call('waiting-accept', server[1].accept, waiting=True)
call('waiting-recvfrom', datagrams[0].recvfrom, 10, waiting=True)
call('waiting-recvmsg', datagrams[1].recvmsg, 10, waiting=True)
call('waiting-connect', fresh[0].connect, full.getsockname(), waiting=True)
call('socket', socket.socket)
call('socket-udp', socket.socket, socket.AF_INET6, socket.SOCK_DGRAM)
call('bind', fresh[1].bind, ('127.0.0.1', 0))
call('listen', bound.listen)
call('connect', fresh[2].connect, server[2].getsockname())
call('connect-service', fresh[3].connect, ('1.1.1.1', 80))
call('accept', server[3].accept)
call('accept-nonblocking', nonblocking.accept)
call('getsockname', client.getsockname)
call('getpeername', client.getpeername)
call('sendto', datagrams[2].sendto, b'x', names[3])
call('sendmsg', datagrams[3].sendmsg, [b'x'], [], 0, names[2])
call('recvfrom', datagrams[4].recvfrom, 10)
call('recvmsg', datagrams[5].recvmsg, 10)
time.sleep(0.5)  # the waiting ones wait
say('ready')
for t in threads:
    t.join()
wait_for('up')
try:
    for s in server:
        with socket.create_connection(s.getsockname(), timeout=20) as c:
            a, peer = s.accept()
            assert peer == c.getsockname(), (peer, c.getsockname())
            a.close()
    bound.listen()
    with socket.create_connection(bound.getsockname(), timeout=20) as c:
        bound.accept()[0].close()
    fresh[1].bind(('127.0.0.1', 0))
    assert client.getpeername() == accepted.getsockname()
    for d, name in zip(datagrams, names):
        datagrams[0].sendto(b'hello', name)
        assert d.recvfrom(10) == (b'hello', names[0])
    client.sendall(b'still here')
    assert accepted.recv(20) == b'still here'
    with socket.create_connection(('1.1.1.1', 80), timeout=20) as c:
        c.sendall(b'GET / HTTP/1.0\r\n\r\n')
        assert c.recv(15).startswith(b'HTTP/1.')
    say('works')
except (OSError, AssertionError) as e:
    say('does not work:', repr(e))
    raise
