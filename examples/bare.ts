#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// The whole trick on one page, in one process, with blocking calls: a file is
// opened, its descriptor goes into one end of a socket pair and comes out of
// the other under another number, and the file is read through that number.
// Run it: it prints the two numbers and the first line of this file. Read next:
// lib/cmsg.ts, the bytes of the control message. Open sendmsg(2), cmsg(3),
// unix(7) beside it.

import { closeSync, openSync, readSync } from 'node:fs'

import {
  cmsgSpace,
  parseControlMessages,
  parseUnixRights,
  unixRights,
} from '../lib/cmsg.ts'
import { host } from '../lib/layouts.ts'
import { allocate, check, declare } from '../lib/libc.ts'
import { initMsghdr, readMsghdr, setParts } from '../lib/msghdr.ts'
import { commandLine, help } from '../lib/script/cli.ts'

const USAGE = `Usage: ./examples/bare.ts
Sends a descriptor of this file over a socket pair, receives it under another
number, and prints both numbers and the first line, read through the second.`

commandLine(USAGE, { options: help }, [0, 0])

// The three functions of libc, with their prototypes.
// int socketpair(int domain, int type, int protocol, int sv[2])
const socketpair = declare('socketpair', 'int', [
  'int',
  'int',
  'int',
  'pointer',
])
// ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
const sendmsg = declare('sendmsg', 'size', ['int', 'pointer', 'int'])
// ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
const recvmsg = declare('recvmsg', 'size', ['int', 'pointer', 'int'])

const { AF_UNIX, SOCK_STREAM, MSG_CMSG_CLOEXEC } = host.constants
const ends = allocate(8)
check('socketpair', socketpair(AF_UNIX, SOCK_STREAM, 0, ends.address))
const [near, far] = [ends.bytes.readInt32LE(0), ends.bytes.readInt32LE(4)]

// One stretch of memory for both calls. The msghdr, at its start, points to the
// iovec and to the control buffer; the iovec points to the data. Each part has
// more room than it needs (a msghdr is 56 bytes on 64-bit Linux), and begins at
// a multiple of 64, so it is aligned for C. `memory.base` is where all of it
// begins, as a number to be written into the structs; `memory.address` is the
// same as the argument of a call.
const [IOVEC, DATA, CONTROL] = [64, 128, 192]
const room = cmsgSpace(4) // one descriptor, as a C int
const memory = allocate(CONTROL + room)
const parts = {
  data: memory.base + DATA,
  dataLength: 1, // no descriptor travels without a byte
  control: memory.base + CONTROL,
  controlLength: room,
}
initMsghdr(memory.bytes, 0, memory.base + IOVEC, host)

// Send: the control message holds the number that the file has here.
const file = openSync(import.meta.filename, 'r')
memory.bytes.set(unixRights(file), CONTROL)
setParts(memory.bytes, 0, IOVEC, parts, host)
check('sendmsg', sendmsg(near, memory.address, 0))

// Receive: the kernel writes a control message with a new number. The buffer is
// zeroed before, so that nothing of what was sent can be taken for it.
memory.bytes.fill(0, CONTROL)
setParts(memory.bytes, 0, IOVEC, parts, host)
check('recvmsg', recvmsg(far, memory.address, MSG_CMSG_CLOEXEC))
const { controlLength } = readMsghdr(memory.bytes, 0, host)
const control = memory.bytes.subarray(CONTROL, CONTROL + controlLength)
const [received = -1] = parseControlMessages(control).flatMap((message) =>
  parseUnixRights(message),
)

const text = Buffer.alloc(80)
const length = readSync(received, text)
const [line] = text.toString('utf8', 0, length).split('\n')
console.log(`Sent fd ${file}, received fd ${received}, which reads: ${line}`)
for (const fd of [file, received, near, far]) closeSync(fd)
