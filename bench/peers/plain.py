# Python's own socket.send_fds and recv_fds on blocking sockets. The command
# line, the rows and what is counted: see plain.c.

import os
import select
import socket
import sys
import time

FULL, LARGE, KEPT = 252, 65536, 4000
BYTE, BLOCK = b'x', b'x' * LARGE
NULL = os.open('/dev/null', os.O_RDWR)


kept = []


def keep(fds):
    kept.extend(fds)
    return len(fds)


def close_kept():
    for fd in kept:
        os.close(fd)
    kept.clear()


def ask(count):
    END.send(count.to_bytes(4, 'little'))


def asked():
    count = END.recv(4)
    if not count:
        sys.exit()
    return int.from_bytes(count, 'little')


def one_at_a_time(count, fds):
    units = 0
    for _ in range(count):
        socket.send_fds(END, [BYTE], fds)
        units += keep(socket.recv_fds(FAR_END, 1, FULL)[1])
    return units


def take_messages(count, size):
    received, descriptors = 0, 0
    ask(count)
    while received < count * size:
        data, fds, _, _ = socket.recv_fds(END, size, 2)
        received += len(data)
        descriptors += keep(fds)
    assert descriptors == count, descriptors
    return descriptors if size == 1 else received


def give_messages(data):
    while True:
        for _ in range(asked()):
            socket.send_fds(END, [data], [NULL])


def take_bytes(count):
    units = 0
    ask(count)
    while units < count * LARGE:
        units += len(END.recv(LARGE))
    return units


def give_bytes():
    while True:
        for _ in range(asked()):
            END.sendall(BLOCK)


def ping(count):
    units = 0
    for _ in range(count):
        socket.send_fds(END, [BYTE], [NULL])
        units += 1 + keep(socket.recv_fds(END, 1, 1)[1])
    return units


def pong():
    while True:
        data, fds, _, _ = socket.recv_fds(END, 1, 1)
        if not data:
            return
        socket.send_fds(END, [BYTE], [NULL])
        keep(fds)
        close_kept()


def wake_up(count):
    units = 0
    waiting = select.poll()
    waiting.register(END, select.POLLIN)
    for _ in range(count):
        FAR_END.send(BYTE)
        waiting.poll()
        units += len(END.recv(1))
    return units


def connect_close(count):
    units = 0
    for _ in range(count):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(PATH)
            socket.send_fds(sock, [BYTE], [NULL])
            units += len(sock.recv(1))
    return units


def listen_ready():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(PATH)
    listener.listen(511)
    print('ready', flush=True)
    return listener


def accept_answer():
    listener = listen_ready()
    while True:
        with listener.accept()[0] as sock:
            keep(socket.recv_fds(sock, 1, 1)[1])
            sock.send(BYTE)
            close_kept()


def hold(count):
    listener = listen_ready()
    waiting, held = select.poll(), []
    for _ in range(count):
        held.append(listener.accept()[0])
        waiting.register(held[-1], select.POLLIN)
    print('held', flush=True)
    waiting.poll()


TIMER = {
    'one-at-a-time': lambda count: one_at_a_time(count, [NULL]),
    'in-flight': lambda count: take_messages(count, 1),
    'full': lambda count: one_at_a_time(count, [NULL] * FULL),
    'ping-pong': ping,
    'stream': lambda count: take_messages(count, LARGE),
    'bytes': take_bytes,
    'wake-up': wake_up,
    'connect': connect_close,
}
OTHER = {
    'in-flight': lambda: give_messages(BYTE),
    'ping-pong': pong,
    'stream': lambda: give_messages(BLOCK),
    'bytes': give_bytes,
    'connect': accept_answer,
    'idle': lambda: hold(int(sys.argv[4])),
}

row, role = sys.argv[1:3]
if len(sys.argv) > 3:
    PATH = sys.argv[3]
else:
    END = socket.socket(fileno=3)
    END.setblocking(True)
    if row in ('one-at-a-time', 'full', 'wake-up'):
        FAR_END = socket.socket(fileno=4)
        FAR_END.setblocking(True)

if role == 'other':
    OTHER[row]()
else:
    portion = KEPT // FULL if row == 'full' else KEPT
    for line in sys.stdin:
        spent, units, count = 0, 0, int(line)
        for done in range(0, count, portion):
            start = time.perf_counter_ns()
            units += TIMER[row](min(portion, count - done))
            spent += time.perf_counter_ns() - start
            close_kept()
        print(spent, units, flush=True)
