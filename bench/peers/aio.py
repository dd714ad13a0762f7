# Python's asyncio, which has no calls of its own for descriptors: what the
# socket module sends and receives, waiting with add_reader and add_writer. The
# command line, the rows and what is counted: see plain.c.

import asyncio
import os
import socket
import sys
import time

FULL, LARGE, KEPT = 252, 65536, 4000
BYTE, BLOCK = b'x', b'x' * LARGE
NULL = os.open('/dev/null', os.O_RDWR)


async def until(sock, add, remove):
    ready = asyncio.get_running_loop().create_future()
    add(sock, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        remove(sock)


async def recv(sock, size, most):
    loop = asyncio.get_running_loop()
    while True:
        try:
            return socket.recv_fds(sock, size, most)
        except BlockingIOError:
            await until(sock, loop.add_reader, loop.remove_reader)


async def send(sock, data, fds):
    loop = asyncio.get_running_loop()
    while data:
        try:
            sent = socket.send_fds(sock, [data], fds)
            data, fds = data[sent:], []
        except BlockingIOError:
            await until(sock, loop.add_writer, loop.remove_writer)


kept = []


def keep(fds):
    kept.extend(fds)
    return len(fds)


def close_kept():
    for fd in kept:
        os.close(fd)
    kept.clear()


async def ask(count):
    await send(END, count.to_bytes(4, 'little'), [])


async def asked():
    count, _, _, _ = await recv(END, 4, 0)
    if not count:
        sys.exit()
    return int.from_bytes(count, 'little')


async def one_at_a_time(count, fds):
    units = 0
    for _ in range(count):
        await send(END, BYTE, fds)
        units += keep((await recv(FAR_END, 1, FULL))[1])
    return units


# With a reader that stays registered and takes what there is: cheaper than
# waiting for each message anew.
async def take_messages(count, size):
    loop = asyncio.get_running_loop()
    received, descriptors = 0, 0
    done = loop.create_future()

    def take():
        nonlocal received, descriptors
        try:
            while received < count * size:
                data, fds, _, _ = socket.recv_fds(END, size, 2)
                received += len(data)
                descriptors += keep(fds)
        except BlockingIOError:
            return
        loop.remove_reader(END)
        done.set_result(None)

    loop.add_reader(END, take)
    await ask(count)
    await done
    assert descriptors == count, descriptors
    return descriptors if size == 1 else received


async def give_messages(data):
    while True:
        for _ in range(await asked()):
            await send(END, data, [NULL])


async def take_bytes(count):
    loop = asyncio.get_running_loop()
    units = 0
    await ask(count)
    while units < count * LARGE:
        units += len(await loop.sock_recv(END, LARGE))
    return units


async def give_bytes():
    loop = asyncio.get_running_loop()
    while True:
        for _ in range(await asked()):
            await loop.sock_sendall(END, BLOCK)


async def ping(count):
    units = 0
    for _ in range(count):
        await send(END, BYTE, [NULL])
        units += 1 + keep((await recv(END, 1, 1))[1])
    return units


async def pong():
    while True:
        data, fds, _, _ = await recv(END, 1, 1)
        if not data:
            return
        await send(END, BYTE, [NULL])
        keep(fds)
        close_kept()


# The reader stays registered: what is timed is the wake-up alone.
async def wake_up(count):
    loop = asyncio.get_running_loop()
    units, ready = 0, None
    loop.add_reader(END, lambda: ready.set_result(END.recv(1)))
    for _ in range(count):
        ready = loop.create_future()
        FAR_END.send(BYTE)
        units += len(await ready)
    loop.remove_reader(END)
    return units


async def connect_close(count):
    loop = asyncio.get_running_loop()
    units = 0
    for _ in range(count):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, PATH)
            await send(sock, BYTE, [NULL])
            units += len(await loop.sock_recv(sock, 1))
    return units


def listen_ready():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(PATH)
    listener.listen(511)
    listener.setblocking(False)
    print('ready', flush=True)
    return listener


async def accept_answer():
    listener = listen_ready()
    while True:
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        with sock:
            keep((await recv(sock, 1, 1))[1])
            await send(sock, BYTE, [])
            close_kept()


async def hold(count):
    loop, listener, held = asyncio.get_running_loop(), listen_ready(), []
    for _ in range(count):
        sock, _ = await loop.sock_accept(listener)
        sock.setblocking(False)
        held.append(asyncio.create_task(recv(sock, 1, 1)))
    print('held', flush=True)
    await asyncio.gather(*held)


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


async def main():
    if role == 'other':
        await OTHER[row]()
        return
    # Reading a line holds up the loop, which has nothing to do between counts.
    portion = KEPT // FULL if row == 'full' else KEPT
    for line in sys.stdin:
        spent, units, count = 0, 0, int(line)
        for done in range(0, count, portion):
            start = time.perf_counter_ns()
            units += await TIMER[row](min(portion, count - done))
            spent += time.perf_counter_ns() - start
            close_kept()
        print(spent, units, flush=True)


row, role = sys.argv[1:3]
if len(sys.argv) > 3:
    PATH = sys.argv[3]
else:
    END = socket.socket(fileno=3)
    END.setblocking(False)
    if row in ('one-at-a-time', 'full', 'wake-up'):
        FAR_END = socket.socket(fileno=4)
        FAR_END.setblocking(False)

asyncio.run(main())
