"""The Python part of the chaos test; chaos.c says how its programs talk.

    chaos.py serve PORT ID      threads, blocking sockets        chaos.py aserve PORT ID      asyncio
    chaos.py ask STOP PAUSE TARGET...                            chaos.py aask STOP PAUSE WORKERS TARGET...
    chaos.py lookup STOP PAUSE NAME=ADDRESS...                   name lookups over UDP, without the C library
"""
import asyncio
import os
import random
import socket
import struct
import sys
import threading
import time

PATIENCE = 100
counters = []


def say(*words):
    print(*words, flush=True)


def tell():
    while True:
        say('at', *counters)
        time.sleep(0.5)


def begin(workers):
    counters.extend([0] * workers)
    threading.Thread(target=tell, daemon=True).start()


def split(target):
    address, who = target.split('=')
    host, port = address.split(':')
    return host, int(port), who


def serve(port, who):
    s = socket.create_server(('', int(port)), backlog=512)

    def answer(c):
        with c:
            c.sendall(who.encode() + b' ' + c.recv(64))
    while True:
        c, _ = s.accept()
        threading.Thread(target=answer, args=(c,), daemon=True).start()


def aserve(port, who):
    async def answer(r, w):
        w.write(who.encode() + b' ' + await r.readline())
        await w.drain()
        w.close()

    async def main():
        server = await asyncio.start_server(answer, '0.0.0.0', int(port), backlog=512)
        await server.serve_forever()
    asyncio.run(main())


def ask(stop, pause, *targets):
    begin(1)
    n = 0
    while not os.path.exists(stop):
        host, port, who = split(targets[n % len(targets)])
        began = time.time()
        try:
            with socket.create_connection((host, port), timeout=PATIENCE if n % 2 else None) as c:
                c.sendall(b'%d\n' % n)
                answer = c.makefile().readline()
            if answer != f'{who} {n}\n':
                raise OSError(f'answer {answer!r}')
            counters[0] += 1
        except OSError as e:
            say('failed', host, port, f'after {time.time() - began:.1f} s:', e)
        n += 1
        time.sleep(float(pause))
    say('done', sum(counters))


def aask(stop, pause, workers, *targets):
    begin(int(workers))

    async def work(w):
        n = w
        while not os.path.exists(stop):
            host, port, who = split(targets[n % len(targets)])
            began = time.time()
            try:
                r, wr = await asyncio.wait_for(asyncio.open_connection(host, port), PATIENCE)
                wr.write(b'%d\n' % n)
                answer = (await asyncio.wait_for(r.readline(), PATIENCE)).decode()
                wr.close()
                if answer != f'{who} {n}\n':
                    raise OSError(f'answer {answer!r}')
                counters[w] += 1
            except (OSError, asyncio.TimeoutError) as e:
                say('failed', host, port, f'after {time.time() - began:.1f} s:', repr(e))
            n += 1
            await asyncio.sleep(float(pause))

    async def main():
        await asyncio.gather(*[work(w) for w in range(int(workers))])
    asyncio.run(main())
    say('done', sum(counters))


def lookup(stop, pause, *names):
    """UDP may lose a datagram: a query is asked again each second, with the same id, as a stub resolver does."""
    begin(1)
    with open('/etc/resolv.conf') as f:
        server = next(line.split()[1] for line in f if line.startswith('nameserver'))
    n = 0
    while not os.path.exists(stop):
        name, address = names[n % len(names)].split('=')
        began = time.time()
        try:
            got = query(server, name, connected=n % 2 == 0)
            if got != address:
                raise OSError(f'address {got}')
            counters[0] += 1
        except OSError as e:
            say('failed', name, f'after {time.time() - began:.1f} s:', e)
        n += 1
        time.sleep(float(pause))
    say('done', sum(counters))


def query(server, name, connected):
    number = random.randrange(1 << 16)
    labels = b''.join(bytes([len(x)]) + x.encode() for x in name.split('.'))
    packet = struct.pack('>HHHHHH', number, 0x100, 1, 0, 0, 0) + labels + b'\0\0\1\0\1'
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        if connected:
            s.connect((server, 53))
        for _ in range(PATIENCE):
            s.send(packet) if connected else s.sendto(packet, (server, 53))
            try:
                reply, source = s.recvfrom(512)
            except TimeoutError:
                continue
            if source != (server, 53):
                raise OSError(f'reply from {source}')
            if struct.unpack('>H', reply[:2])[0] != number:
                continue
            if reply[3] & 15 == 2:  # SERVFAIL: the resolver is away; a stub resolver asks again
                time.sleep(0.2)
                continue
            return socket.inet_ntoa(reply[-4:])
    raise TimeoutError('no reply')


globals()[sys.argv[1]](*sys.argv[2:])
