"""A compositor that shows nothing, for one client: it does on command what a
real one does only when somebody drags, types or breaks. Knows the Wayland wire
format by itself. Prints each request; commands come on stdin, a line each:

  configure W H | ping N | close | release N | frame N | keymaps TEXT... |
  error WORDS | stray | nofd | hangup | capabilities N

Usage: compositor.py SOCKET [GLOBAL...]    the globals it has, all unless given
"""
import mmap
import os
import select
import socket
import struct
import sys
import tempfile

GLOBALS = ['wl_compositor', 'wl_shm', 'xdg_wm_base', 'wl_seat']

# Each request: name and arguments, in the order of the protocol's XML.
REQUESTS = {
    'wl_display': ['sync n:wl_callback', 'get_registry n:wl_registry'],
    'wl_registry': ['bind usuN'],
    'wl_compositor': ['create_surface n:wl_surface'],
    'wl_shm': ['create_pool n:wl_shm_pool h i'],
    'wl_shm_pool': ['create_buffer n:wl_buffer iiiiu', 'destroy '],
    'wl_buffer': ['destroy '],
    'wl_surface': ['destroy ', 'attach oii', 'damage iiii',
                   'frame n:wl_callback', '?', '?', 'commit '],
    'wl_seat': ['?', 'get_keyboard n:wl_keyboard'],
    'xdg_wm_base': ['?', '?', 'get_xdg_surface n:xdg_surface o', 'pong u'],
    'xdg_surface': ['?', 'get_toplevel n:xdg_toplevel', '?', '?',
                    'ack_configure u'],
    'xdg_toplevel': ['?', '?', 'set_title s'],
}


def say(*words):
    print(*words, flush=True)


def text(string):
    data = string.encode() + b'\0'
    return struct.pack('<I', len(data)) + data + bytes(-len(data) % 4)


class Compositor:
    def __init__(self, client, offered):
        self.client, self.offered = client, offered
        self.objects, self.highest = {1: 'wl_display'}, 1
        self.data, self.fds = b'', []
        self.pools, self.buffers, self.serial = {}, {}, 0
        self.attached = None

    def only(self, kind):
        return max(i for i, k in self.objects.items() if k == kind)

    def message(self, kind, opcode, body=b'', target=None):
        target = self.only(kind) if target is None else target
        size = 8 + len(body)
        return struct.pack('<IHH', target, opcode, size) + body

    def send(self, *args, **more):
        # In pieces: a stream may be cut anywhere.
        data = self.message(*args, **more)
        for at in range(0, len(data), 5):
            self.client.sendall(data[at:at + 5])

    def delete(self, number):
        del self.objects[number]
        self.send('wl_display', 1, struct.pack('<I', number), target=1)

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.client, 65536, 28)
        self.data += data
        self.fds += fds
        while len(self.data) >= 8:
            target, opcode, size = struct.unpack_from('<IHH', self.data)
            if len(self.data) < size:
                break
            body, self.data = self.data[8:size], self.data[size:]
            kind = self.objects[target]
            name, _, signature = REQUESTS[kind][opcode].partition(' ')
            args = self.decode(signature, body)
            say(f'{kind}.{name}', *args)
            handle = getattr(self, f'{kind}_{name}', None)
            if handle:
                handle(target, *args)
        return data != b''

    def decode(self, signature, body):
        args, at = [], 0
        for part in signature.split():
            letters, _, kind = part.partition(':')
            for letter in letters:
                if letter == 'h':
                    args.append(self.fds.pop(0))
                    continue
                (word,) = struct.unpack_from('<i' if letter == 'i' else '<I',
                                             body, at)
                at += 4
                if letter == 's':
                    end = at + word
                    assert body[end - 1] == 0 and len(body) % 4 == 0
                    args.append(body[at:end - 1].decode())
                    assert not any(body[end:at + word + -word % 4])
                    at += word + -word % 4
                    continue
                if letter in 'nN':
                    # New numbers leave no gaps, as libwayland demands.
                    assert word not in self.objects, word
                    assert word <= self.highest + 1, word
                    self.highest = max(self.highest, word)
                    self.objects[word] = kind or args[1]
                args.append(word)
        assert at == len(body)
        return args

    def wl_display_get_registry(self, _, registry):
        for name, kind in enumerate(self.offered, 1):
            self.send('wl_registry', 0, struct.pack('<I', name) + text(kind) +
                      struct.pack('<I', 7), target=registry)

    def wl_display_sync(self, _, callback):
        self.send('wl_callback', 0, struct.pack('<I', 0), target=callback)
        self.delete(callback)

    def wl_registry_bind(self, _, name, kind, version, number):
        assert self.offered[name - 1] == kind and version == 1

    def wl_shm_create_pool(self, _, pool, fd, size):
        file = os.fstat(fd)
        say('pool', size, 'file', file.st_size, 'links', file.st_nlink)
        self.pools[pool] = mmap.mmap(fd, size)
        os.close(fd)

    def wl_shm_pool_create_buffer(self, pool, number, offset, w, h, stride, f):
        self.buffers[number] = (self.pools[pool], offset, w, h, stride)

    def wl_shm_pool_destroy(self, pool):
        self.delete(pool)

    def wl_buffer_destroy(self, number):
        del self.buffers[number]
        self.delete(number)

    def wl_surface_attach(self, _, number, x, y):
        self.attached = number

    def wl_surface_commit(self, _):
        if self.attached is None:
            return self.configure(0, 0)
        memory, offset, w, h, stride = self.buffers[self.attached]
        pixels = memory[offset:offset + stride * h]
        colours = {pixels[at:at + 4] for at in range(0, len(pixels), 4)}
        say('shown', self.attached, f'{w}x{h}', 'colours', len(colours))

    def configure(self, w, h):
        self.serial += 1
        self.send('xdg_toplevel', 0, struct.pack('<iiI', w, h, 0))
        self.send('xdg_surface', 0, struct.pack('<I', self.serial))

    def keymaps(self, *words):
        """All in one message, and the descriptors beside its first byte."""
        data, fds = b'', []
        keyboard = self.only('wl_keyboard')
        for word in words:
            keymap = f'{word}\n<A> = 38;\nkey <A> {{ [ {word[0]} ] }};\n\0'
            file = tempfile.TemporaryFile()
            file.write(keymap.encode())  # and leaves the offset at the end
            file.flush()
            fds.append(file)
            data += self.message('wl_keyboard', 0, struct.pack(
                '<II', 1, len(keymap)), target=keyboard)
            data += self.message('wl_keyboard', 3, struct.pack(
                '<IIII', 0, 0, 30, 1), target=keyboard)
        socket.send_fds(self.client, [data], [file.fileno() for file in fds])

    def command(self, name, *args):
        if name == 'configure':
            self.configure(int(args[0]), int(args[1]))
        elif name == 'ping':
            self.send('xdg_wm_base', 0, struct.pack('<I', int(args[0])))
        elif name == 'close':
            self.send('xdg_toplevel', 1)
        elif name == 'release':
            self.send('wl_buffer', 0, target=int(args[0]))
        elif name == 'frame':
            callback = self.only('wl_callback')
            self.send('wl_callback', 0, struct.pack('<I', int(args[0])))
            self.delete(callback)
        elif name == 'capabilities':
            self.send('wl_seat', 0, struct.pack('<I', int(args[0])))
        elif name == 'keymaps':
            self.keymaps(*args)
        elif name == 'error':
            self.send('wl_display', 0, struct.pack('<II', self.only(
                'wl_surface'), 3) + text(' '.join(args)), target=1)
            self.client.close()
            sys.exit()
        elif name == 'stray':
            self.send('wl_surface', 9)
        elif name == 'nofd':
            self.send('wl_keyboard', 0, struct.pack('<II', 1, 10))
        elif name == 'hangup':
            sys.exit()


def main():
    path, *offered = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    say('ready')
    client = listener.accept()[0]
    compositor = Compositor(client, offered or GLOBALS)
    commands = os.fdopen(0, 'rb', 0)
    while True:
        ready, _, _ = select.select([client, commands], [], [])
        if client in ready and not compositor.receive():
            return say('client left')
        if commands in ready:
            compositor.command(*commands.readline().decode().split())


main()
