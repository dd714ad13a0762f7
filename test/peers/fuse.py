"""A file system whose files hang or fail, as those of a slow or hostile file
server do. Speaks the protocol of the kernel's FUSE by itself, see fuse(4) and
linux/fuse.h; needs Linux, /dev/fuse, and the right to mount. The name of each
file says what is wrong with it:

  ok               nothing: it reads as two lines, as the others do
  hanging-read     read(2) hangs
  hanging-getattr  fstat(2) hangs, and so does lseek(2) to the end
  hanging-flush    close(2) hangs
  failing-flush    close(2) fails, with EIO
  hanging-ioctl    ioctl(2) hangs, and so does isatty(3)
  hanging-poll     poll(2) hangs, and so does epoll_ctl(2)

Prints `ready` once the file system is mounted, then the name of a file each
time that a call begins to hang in it. Such a call goes on until a signal kills
its thread; other signals do not end it. At the end of its standard input, and
at SIGTERM, SIGINT and SIGHUP, this program unmounts the file system and exits:
the calls that hang fail with ECONNABORTED or ENOTCONN, and poll(2) has POLLERR.

With --hand-over, the program serves no files. It passes the descriptor of
/dev/fuse that it mounted with over the Unix socket FD, beside one zero byte, as
fusermount3(1) does, and keeps none: who receives it reads FUSE_INIT first.

Exits 1 if it cannot mount or unmount, 2 if it was called wrongly.
"""
import argparse
import ctypes
import errno
import os
import select
import signal
import socket
import stat
import struct
import sys

CONTENT = b'line 1\nline 2\n'
FILES = ['ok', 'hanging-read', 'hanging-getattr', 'hanging-flush',
         'failing-flush', 'hanging-ioctl', 'hanging-poll']

# Node IDs, by which the kernel names what it has looked up.
ROOT_NODE = 1
NODES = {name: node for node, name in enumerate(FILES, ROOT_NODE + 1)}
NAMES = {node: name for name, node in NODES.items()}

# enum fuse_opcode, without those that change something.
OPERATIONS = {
    1: 'lookup', 2: 'forget', 3: 'getattr', 14: 'open', 15: 'read',
    17: 'statfs', 18: 'release', 25: 'flush', 26: 'init', 27: 'opendir',
    28: 'readdir', 29: 'releasedir', 34: 'access', 36: 'interrupt',
    39: 'ioctl', 40: 'poll', 42: 'batch_forget',
}
# The kernel expects no answer to the first two. It sends FUSE_INTERRUPT when a
# caller whose call hangs gets a signal: we leave the call as it is.
NOT_ANSWERED = {'forget', 'batch_forget', 'interrupt'}

IN_HEADER = struct.Struct('=IIQQIIIHH')
OUT_HEADER = struct.Struct('=IiQ')
INIT_IN = struct.Struct('=IIII')
INIT_OUT = struct.Struct('=IIIIHHII36x')
ATTR = struct.Struct('=QQQQQQIIIIIIIIII')
ENTRY_OUT = struct.Struct('=QQQQII')  # ... and ATTR
ATTR_OUT = struct.Struct('=QII')  # ... and ATTR
OPEN_OUT = struct.Struct('=QII')
READ_IN = struct.Struct('=QQI')  # ... and more; the same for FUSE_READDIR
DIRENT = struct.Struct('=QQII')  # ... and the name, padded to 8 bytes
STATFS_OUT = struct.Struct('=QQQQQIIII24x')
POLL_OUT = struct.Struct('=II')

# The version of the protocol that these structs are of.
MAJOR, MINOR = 7, 31
# Lets the kernel read a page in the background: a signal that kills who waits
# for the page is then obeyed.
FUSE_ASYNC_READ = 1
# The kernel accepts no less for FUSE_WRITE, and no smaller buffer for requests.
MAX_WRITE = 4096
REQUEST_ROOM = 2 * MAX_WRITE
# How long the kernel may answer from what it remembers.
FOR_LONG = 3600  # seconds

# sys/mount.h
MS_NOSUID, MS_NODEV = 2, 4
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
# /proc/PID/stat, see proc_pid_stat(5): positions behind the name, which may
# contain spaces, and a bit of the flags.
FLAGS, PENDING = 6, 28
PF_EXITING = 4
# How often to look whether a caller whose call hangs has been killed.
LOOK_EVERY = 0.05  # seconds

libc = ctypes.CDLL(None, use_errno=True)


def fail(call, number):
    sys.exit(f'{call} {errno.errorcode[number]}: {os.strerror(number)}')


def check(call, result):
    if result == -1:
        fail(call, ctypes.get_errno())


def mount(device, folder):
    options = f'fd={device},rootmode=40000,user_id=0,group_id=0'
    check('mount', libc.mount(b'fuse.py', os.fsencode(folder), b'fuse',
                              ctypes.c_ulong(MS_NOSUID | MS_NODEV),
                              options.encode()))


def unmount(folder):
    # MNT_FORCE ends all calls, also if others have the device open. MNT_DETACH
    # unmounts, also if others have files open.
    flags = MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW
    check('umount2', libc.umount2(os.fsencode(folder), flags))


def dies(thread):
    """Whether a thread has been killed, exits, or is gone."""
    if thread == 0:  # It is of another PID namespace, where we cannot look.
        return False
    try:
        with open(f'/proc/{thread}/stat') as file:
            fields = file.read().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    killed = int(fields[PENDING]) & (1 << (signal.SIGKILL - 1))
    return bool(killed or int(fields[FLAGS]) & PF_EXITING)


class Server:
    def __init__(self, device):
        self.device = device
        self.hanging = {}  # the thread whose call it is, for each request

    def serve(self):
        """Reads one request, and answers it unless it is to hang."""
        try:
            request = os.read(self.device, REQUEST_ROOM)
        except (BlockingIOError, FileNotFoundError):
            return  # Who made the request has been killed since select(2).
        except OSError as error:  # ENODEV: unmounted by somebody else.
            fail('read', error.errno)
        fields = IN_HEADER.unpack_from(request)
        _, opcode, unique, node, _, _, thread, _, _ = fields
        operation = OPERATIONS.get(opcode, 'unknown')
        if operation in NOT_ANSWERED:
            return
        name = NAMES.get(node)
        if name == f'hanging-{operation}':
            self.hanging[unique] = thread
            print(name, flush=True)
        elif name == f'failing-{operation}':
            self.answer(unique, errno.EIO)
        else:
            handler = getattr(self, operation)
            try:
                answer = handler(node, request[IN_HEADER.size:])
            except OSError as error:
                self.answer(unique, error.errno)
            else:
                self.answer(unique, 0, answer)

    def answer(self, unique, error, data=b''):
        header = OUT_HEADER.pack(OUT_HEADER.size + len(data), -error, unique)
        os.write(self.device, header + data)

    def let_the_dying_go(self):
        # A server that is really slow does not know: but for read(2) through
        # the page cache, even SIGKILL ends no call whose request the server has
        # read. A test would then wait for its killed child until we end, and we
        # end only after the test.
        for unique, thread in list(self.hanging.items()):
            if dies(thread):
                del self.hanging[unique]
                self.answer(unique, errno.EINTR)

    # The operations, each with what the kernel expects as the answer.

    def init(self, _, body):
        _, _, readahead, flags = INIT_IN.unpack_from(body)
        return INIT_OUT.pack(MAJOR, MINOR, readahead, flags & FUSE_ASYNC_READ,
                             0, 0, MAX_WRITE, 1)

    def lookup(self, _, body):
        node = NODES.get(os.fsdecode(body[:-1]))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, 'no such file')
        return ENTRY_OUT.pack(node, 0, FOR_LONG, self.validity(node), 0, 0) + (
            self.attributes(node))

    def getattr(self, node, _):
        return ATTR_OUT.pack(self.validity(node), 0, 0) + self.attributes(node)

    def validity(self, node):
        # The kernel is to ask each time.
        return 0 if NAMES.get(node) == 'hanging-getattr' else FOR_LONG

    def attributes(self, node):
        is_root = node == ROOT_NODE
        mode = stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644
        size, links = (0, 2) if is_root else (len(CONTENT), 1)
        return ATTR.pack(node, size, 0, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0,
                         4096, 0)

    def open(self, *_):
        return OPEN_OUT.pack(0, 0, 0)

    def read(self, _, body):
        _, offset, size = READ_IN.unpack_from(body)
        return CONTENT[offset:offset + size]

    def readdir(self, _, body):
        _, offset, _ = READ_IN.unpack_from(body)
        entries = [('.', ROOT_NODE), ('..', ROOT_NODE), *NODES.items()]
        answer = b''
        # All fit into the page that the kernel has room for at least.
        for after, (name, node) in list(enumerate(entries, 1))[offset:]:
            kind = stat.S_IFREG if node in NAMES else stat.S_IFDIR
            entry = DIRENT.pack(node, after, len(name), kind >> 12)
            entry += name.encode()
            answer += entry + bytes(-len(entry) % 8)
        return answer

    def statfs(self, *_):
        return STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)

    def poll(self, *_):
        return POLL_OUT.pack(select.POLLIN | select.POLLOUT, 0)

    def ioctl(self, *_):
        raise OSError(errno.ENOTTY, 'not a terminal')

    def nothing(self, *_):
        return b''

    opendir = open
    release = releasedir = flush = access = nothing

    def unknown(self, *_):
        # Also from now on: the kernel does not ask again, for any file.
        raise OSError(errno.ENOSYS, 'not implemented')


def has_ended(signals, ready):
    """Whether a signal came, or our standard input is at its end."""
    return signals in ready or (0 in ready and not os.read(0, 4096))


def serve(device, signals):
    server = Server(device)
    while True:
        patience = LOOK_EVERY if server.hanging else None
        inputs = [0, signals, device]
        ready = select.select(inputs, [], [], patience)[0]
        if has_ended(signals, ready):
            return
        if device in ready:
            server.serve()
        server.let_the_dying_go()


def hand_over(device, conn):
    socket.send_fds(conn, [b'\0'], [device])
    conn.close()
    os.close(device)


def wait(signals):
    while not has_ended(signals, select.select([0, signals], [], [])[0]):
        pass


def unix_socket(text):
    try:
        conn = socket.socket(fileno=int(text))
    except (OSError, ValueError):
        conn = None
    if conn is None or conn.family != socket.AF_UNIX:
        raise argparse.ArgumentTypeError(
            f'Expected the number of a Unix socket, got {text}')
    return conn


def main():
    description, _, more = __doc__.partition('\n\n')
    parser = argparse.ArgumentParser(
        description=description, epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', metavar='MOUNTPOINT')
    parser.add_argument('--hand-over', metavar='FD', type=unix_socket,
                        help='pass the descriptor of /dev/fuse to a peer')
    args = parser.parse_args()
    folder = os.path.abspath(args.folder)

    # A signal only writes a byte, which select(2) then reports: none interrupts
    # us between mount(2) and the `try` that unmounts.
    signals, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    for number in signal.SIGHUP, signal.SIGINT, signal.SIGTERM:
        signal.signal(number, lambda *_: None)

    try:
        device = os.open('/dev/fuse', os.O_RDWR)
    except OSError as error:
        fail('open', error.errno)
    mount(device, folder)
    try:
        if args.hand_over:
            hand_over(device, args.hand_over)
            print('ready', flush=True)
            wait(signals.fileno())
        else:
            os.set_blocking(device, False)
            print('ready', flush=True)
            serve(device, signals.fileno())
    finally:
        unmount(folder)


main()
