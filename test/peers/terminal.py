# Usage: terminal.py UID COMMAND [ARG...]
# Runs COMMAND as user UID on a pseudo-terminal of its own, which belongs to that
# user: what comes on standard input is typed there, what appears there goes to
# standard output. Exits as COMMAND does, or 1 if a signal ended it.
import os
import pty
import select
import sys

uid, command = int(sys.argv[1]), sys.argv[2:]
pid, master = pty.fork()
if pid == 0:
    if uid != os.getuid():
        os.fchown(0, uid, uid)
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    os.execvp(command[0], command)

inputs = [0, master]
while master in inputs:
    for fd in select.select(inputs, [], [])[0]:
        try:
            data = os.read(fd, 65536)
        except OSError:  # EIO: nobody has the terminal open.
            data = b''
        if not data:
            inputs.remove(fd)
        else:
            os.write(master if fd == 0 else 1, data)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status) & 0xff if os.WIFEXITED(status) else 1)
