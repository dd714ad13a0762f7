#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// Every byte of one message that carries descriptors: of its msghdr, iovec,
// control message and data, before sendmsg(2), after it, and as recvmsg(2) left
// them for the receiver. The structs and the calls are those of bare.ts, and
// all happens in one process as there.
//
// You will see a line for each field: offset, bytes, name, meaning. Padding has
// a line too, so that no byte of a struct is left out, and under each struct
// stands which function wrote it. Then change what happens:
//
//    --fds 2 --room 24       room for one descriptor is room for two
//    --fds 3 --room 24       the third is lost, and MSG_CTRUNC is set
//    --abi darwin-arm64      the structs of another platform
//
// Open sendmsg(2), recvmsg(2), cmsg(3), unix(7) beside it. Read next:
// lib/cmsg.ts, which builds the control message.

import { closeSync, openSync } from 'node:fs'

import { buildRights, descriptorsIn, spaceFor } from '../lib/cmsg.ts'
import { type Abi, abis, host } from '../lib/layouts.ts'
import { allocate, check, declare } from '../lib/libc.ts'
import { initMsghdr, readMsghdr, setParts } from '../lib/msghdr.ts'
import {
  commandLine,
  help,
  numberOption,
  orFail,
  usageError,
} from '../lib/script/cli.ts'

const HERE = `${process.platform}-${process.arch}`
const MOST_ROOM = 65536 // bytes
const INT = 4 // sizeof(int); in a control message, a descriptor

const USAGE = `Usage: ./examples/bytes.ts [--fds N] [--room N] [--abi NAME]
Passes descriptors over a pair of sockets, and shows every byte of the structs.
  --fds N     how many descriptors to send, 1 to ${host.maxFds} (1)
  --room N    bytes of control buffer at the receiver, 0 to ${MOST_ROOM}
              (as many as the descriptors need)
  --abi NAME  show the structs of another platform, and send nothing:
              ${Object.keys(abis).slice(0, 4).join(', ')},
              ${Object.keys(abis).slice(4).join(', ')}`

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

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      fds: { type: 'string', default: '1' },
      room: { type: 'string' },
      abi: { type: 'string', default: HERE },
    },
  },
  [0, 0],
)
const isHere = values.abi === HERE
const abi = abiOf(values.abi)
const count = numberOption(USAGE, '--fds N', values.fds, [1, abi.maxFds])
const need = spaceFor(count * INT, abi)
const wanted = values.room ?? `${need}`
const room = numberOption(USAGE, '--room N', wanted, [0, MOST_ROOM])
if (!isHere && values.room !== undefined)
  usageError(USAGE, `Expected no --room: ${values.abi} receives nothing here`)

// The memory of a message is one stretch. The msghdr, at its start, points to
// the iovec and to the control buffer; the iovec points to the data:
//
//    msghdr | iovec | control buffer | data
const IOVEC = abi.msghdr.size
const CONTROL = IOVEC + abi.iovec.size
const DATA_SIZE = 1 // no descriptor travels without a byte

/** What the receiver's memory is filled with: the kernel writes over it. */
const FILL = 0xee

/** The memory of a message. */
type Message = {
  readonly bytes: Buffer
  /** Its address, for the pointers in it. */
  readonly base: number
  /** The size of its control buffer, in bytes. */
  readonly offered: number
}

console.log(`Structs of ${values.abi}. Each line: offset in the struct, bytes \
in the order of
memory (the lowest of a number first), field, meaning.`)
if (isHere) orFail(pass)
else build()

/** Sends descriptors to itself; shows the memory of sender and receiver. */
function pass(): void {
  const { AF_UNIX, SOCK_STREAM, MSG_CMSG_CLOEXEC, MSG_CTRUNC } = host.constants
  const ends = allocate(2 * INT)
  check('socketpair', socketpair(AF_UNIX, SOCK_STREAM, 0, ends.address))
  const [near, far] = [ends.bytes.readInt32LE(0), ends.bytes.readInt32LE(INT)]
  const fds = Array.from({ length: count }, () => {
    return openSync(import.meta.filename, 'r')
  })

  const sender = { ...allocate(CONTROL + need + DATA_SIZE), offered: need }
  compose(sender, fds)
  heading('1. Before sendmsg(2)', sender)
  show(sender)

  const before = Buffer.from(sender.bytes)
  const sent = check('sendmsg', sendmsg(near, sender.address, 0))
  heading(`2. After sendmsg(2), which returned ${sent}`, sender)
  showAgain(sender, before)

  // The socket is blocking, but the message is there: this does not wait.
  const receiver = { ...allocate(CONTROL + room + DATA_SIZE), offered: room }
  makeRoom(receiver)
  const flags = MSG_CMSG_CLOEXEC
  const got = check('recvmsg', recvmsg(far, receiver.address, flags))
  heading(`3. After recvmsg(2), which returned ${got}`, receiver)
  show(receiver, fds)

  // What arrived is open under new numbers, and this process has to close it.
  // For what did not fit there are no numbers.
  const header = readMsghdr(receiver.bytes, 0, host)
  const end = CONTROL + header.controlLength
  const received = descriptorsIn(receiver.bytes.subarray(CONTROL, end))
  for (const fd of [...fds, ...received, near, far]) closeSync(fd)

  const { cmsg_data } = host.cmsghdr
  const most = Math.max(0, Math.floor((room - cmsg_data) / INT))
  const isCut = (header.flags & MSG_CTRUNC) !== 0
  const fit = `${amount(most, 'descriptor')} behind a header of ${cmsg_data}`
  const tally = `${count} sent, ${received.length} received`
  console.log(`
${amount(room, 'byte')} of control buffer: room for ${fit}.
${tally}: MSG_CTRUNC is ${isCut ? 'set' : 'not set'}.`)
}

/** Shows what another platform would send. */
function build(): void {
  const message = {
    bytes: Buffer.alloc(CONTROL + need + DATA_SIZE),
    base: 0x12345600, // no memory, but four bytes whose order can be seen
    offered: need,
  }
  const fds = Array.from({ length: count }, (_, index) => 3 + index)
  compose(message, fds)
  heading('What would be sent', message)
  show(message)
  console.log(`
Nothing was sent: this is ${HERE}. Address and descriptors are made up.`)
}

/** Writes a message with `fds` into zeroed memory. */
function compose(message: Message, fds: readonly number[]): void {
  layOut(message)
  message.bytes.set(buildRights(fds, abi), CONTROL)
  message.bytes.write('x', CONTROL + message.offered)
}

/** Makes zeroed memory ready to receive a message. */
function makeRoom(message: Message): void {
  layOut(message)
  message.bytes.fill(FILL, CONTROL)
}

function layOut({ bytes, base, offered }: Message): void {
  const parts = {
    data: base + CONTROL + offered,
    dataLength: DATA_SIZE,
    control: base + CONTROL,
    controlLength: offered,
  }
  initMsghdr(bytes, 0, base + IOVEC, abi)
  setParts(bytes, 0, IOVEC, parts, abi)
}

/** A line of the dump. Its offset counts from the start of the struct. */
type Field = readonly [
  offset: number,
  size: number,
  name: string,
  meaning: string,
]

/** A part of a message's memory, with a field for each byte of it. */
type Block = {
  readonly title: string
  readonly start: number
  readonly size: number
  readonly fields: readonly Field[]
  /** Who wrote the bytes: files and functions. */
  readonly by: string
}

/**
 * What lies in the memory of a message, in order.
 *
 * @param sent if the message was received: the descriptors that were sent
 */
function blocksOf(message: Message, sent?: readonly number[]): Block[] {
  const { offered } = message
  const built = 'lib/msghdr.ts initMsghdr, setParts'
  const msghdr = {
    title: 'msghdr',
    start: 0,
    size: abi.msghdr.size,
    fields: msghdrFields(message, sent !== undefined),
    by: sent ? `${built}; then by recvmsg(2)` : built,
  }
  const iovec = {
    title: 'iovec',
    start: IOVEC,
    size: abi.iovec.size,
    fields: iovecFields(message),
    by: 'lib/msghdr.ts setParts',
  }
  const control = {
    title: sent ? 'control buffer' : 'control message',
    start: CONTROL,
    size: offered,
    fields: controlFields(message, sent),
    by: sent
      ? 'examples/bytes.ts makeRoom (ee); the rest by recvmsg(2)'
      : 'lib/cmsg.ts buildRights',
  }
  const data = {
    title: 'data',
    start: CONTROL + offered,
    size: DATA_SIZE,
    fields: dataFields(message),
    by: sent ? 'recvmsg(2)' : 'examples/bytes.ts compose',
  }
  return [msghdr, iovec, control, data].filter(({ size }) => size > 0)
}

// A length is a size_t on Linux, as wide as a pointer, and on the BSDs an int
// or a socklen_t. (musl declares those too, and a zeroed pad beside each, for
// the size_t that the kernel reads.)
function msghdrFields(message: Message, isReceived: boolean): Field[] {
  const { bytes, offered } = message
  const { pointerSize: pointer, msghdr } = abi
  const { msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags } = msghdr
  const lengthSize = msg_flags - msg_controllen
  const namelen = bytes.readUInt32LE(pointer)
  const iovlen = bytes.readUInt32LE(msg_iovlen)
  const { controlLength: now, flags } = readMsghdr(bytes, 0, abi)
  const controllen = isReceived ? `was ${offered}, is ${now}` : `${now}`
  const names = isReceived ? namesOf(flags) : `${flags}: sendmsg(2) ignores it`
  const fields: Field[] = [
    [0, pointer, 'msg_name', `${target(message, 0)}: a pair has no addresses`],
    [pointer, INT, 'msg_namelen', amount(namelen, 'byte')],
    [msg_iov, pointer, 'msg_iov', target(message, msg_iov)],
    [msg_iovlen, lengthSize, 'msg_iovlen', amount(iovlen, 'iovec')],
    [msg_control, pointer, 'msg_control', target(message, msg_control)],
    [msg_controllen, lengthSize, 'msg_controllen', controllen],
    [msg_flags, INT, 'msg_flags', names],
  ]
  return withPadding(fields, msghdr.size, pointer)
}

function iovecFields(message: Message): Field[] {
  const { iov_base, iov_len, size } = abi.iovec
  const length = message.bytes.readUInt32LE(IOVEC + iov_len)
  const pointer = abi.pointerSize
  const fields: Field[] = [
    [iov_base, pointer, 'iov_base', target(message, IOVEC + iov_base)],
    [iov_len, pointer, 'iov_len', amount(length, 'byte')],
  ]
  return withPadding(fields, size, pointer)
}

function controlFields(message: Message, sent?: readonly number[]): Field[] {
  const { bytes, offered } = message
  const { cmsg_len, cmsg_level, cmsg_type, cmsg_data } = abi.cmsghdr
  const used = readMsghdr(bytes, 0, abi).controlLength
  if (used < cmsg_data) return [[0, offered, 'unused', 'no header']]

  const control = bytes.subarray(CONTROL, CONTROL + offered)
  const length = control.readUInt32LE(cmsg_len)
  const level = control.readInt32LE(cmsg_level)
  const type = control.readInt32LE(cmsg_type)
  const fds: Field[] = []
  // darwin leaves a cmsg_len in a message that it cut short.
  const end = Math.min(length, used)
  for (let at = cmsg_data; at + INT <= end; at += INT) {
    const fd = control.readInt32LE(at)
    const origin = sent ? `, sent as fd ${sent[fds.length]}` : ''
    fds.push([at, INT, 'descriptor', `fd ${fd}${origin}`])
  }
  const ints = fds.length === 1 ? 'one int' : `${fds.length} ints`
  const meaning = `${length}: header ${cmsg_data} and ${ints}`
  const fields: Field[] = [
    [cmsg_len, cmsg_level - cmsg_len, 'cmsg_len', meaning],
    [cmsg_level, INT, 'cmsg_level', named(level, 'SOL_SOCKET')],
    [cmsg_type, INT, 'cmsg_type', named(type, 'SCM_RIGHTS')],
    ...abridged(fds),
  ]
  const all = withPadding(fields, used, abi.cmsgAlignment)
  if (used === offered) return all
  return [...all, [used, offered - used, 'unused', 'behind the message']]
}

function dataFields({ bytes, offered }: Message): Field[] {
  const data = bytes.toString('latin1', CONTROL + offered)
  const meaning = `${JSON.stringify(data)}: no descriptor without it`
  return [[0, DATA_SIZE, 'data', meaning]]
}

/** Puts padding into the gaps between the fields, and behind the last. */
function withPadding(
  fields: readonly Field[],
  structSize: number,
  alignment: number,
): Field[] {
  return fields.flatMap((field, index): Field[] => {
    const [offset, size] = field
    const end = offset + size
    const [next] = fields[index + 1] ?? [structSize]
    if (next === end) return [field]
    const meaning = `to a multiple of ${alignment}`
    return [field, [end, next - end, 'padding', meaning]]
  })
}

// Of many, the first three and the last show what all are like.
function abridged(fds: readonly Field[]): readonly Field[] {
  const between = fds.slice(3, -1)
  const [offset] = between[0] ?? []
  if (offset === undefined || between.length <= 4) return fds
  const size = between.length * INT
  const meaning = `${between.length} more`
  const line: Field = [offset, size, 'descriptors', meaning]
  return [...fds.slice(0, 3), line, ...fds.slice(-1)]
}

/** What the pointer at `at` points to. */
function target({ bytes, base, offered }: Message, at: number): string {
  const address =
    abi.pointerSize === 8
      ? Number(bytes.readBigUInt64LE(at))
      : bytes.readUInt32LE(at)
  if (address === 0) return 'NULL'
  const places = new Map([
    [IOVEC, 'the iovec'],
    [CONTROL, 'the control buffer'],
    [CONTROL + offered, 'the data'],
  ])
  const place = address - base
  return `memory + ${place}: ${places.get(place)}`
}

function named(value: number, name: 'SOL_SOCKET' | 'SCM_RIGHTS'): string {
  return value === abi.constants[name] ? `${value}: ${name}` : `${value}`
}

// Linux echoes MSG_CMSG_CLOEXEC.
function namesOf(flags: number): string {
  const known = ['MSG_CTRUNC', 'MSG_CMSG_CLOEXEC'] as const
  const names = known.filter((name) => (flags & abi.constants[name]) !== 0)
  return names.join(', ') || `${flags}`
}

function heading(text: string, { bytes, base }: Message): void {
  const memory = `memory of ${bytes.length} bytes at 0x${base.toString(16)}`
  console.log(`\n${text}: ${memory}`)
}

function show(message: Message, sent?: readonly number[]): void {
  for (const block of blocksOf(message, sent)) dump(block, message.bytes)
}

/** The same, but of what is still as it was `before` only that. */
function showAgain(message: Message, before: Buffer): void {
  for (const block of blocksOf(message)) {
    const end = block.start + block.size
    const bytes = message.bytes.subarray(block.start, end)
    const isSame = bytes.equals(before.subarray(block.start, end))
    if (isSame) console.log(`${titleOf(block)}: as before`)
    else dump(block, message.bytes)
  }
}

function dump(block: Block, memory: Buffer): void {
  console.log(`\n${titleOf(block)}`)
  for (const [offset, size, name, meaning] of block.fields) {
    const start = block.start + offset
    const bytes = memory.subarray(start, start + size)
    const isUnwritten = bytes.every((byte) => byte === FILL)
    const columns = [
      `${offset}`.padStart(6),
      hex(bytes).padEnd(23),
      name.padEnd(14),
      isUnwritten ? 'not written' : meaning,
    ]
    console.log(columns.join('  '))
  }
  console.log(`Written by ${block.by}`)
}

function titleOf({ title, size, start }: Block): string {
  return `${title}, ${amount(size, 'byte')} at memory + ${start}`
}

function amount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

function hex(bytes: Buffer): string {
  const numbers = bytes.toString('hex').match(/../g) ?? []
  if (bytes.length <= 8) return numbers.join(' ')
  return `${numbers.slice(0, 3).join(' ')} … ${bytes.length} bytes`
}

function abiOf(name: string): Abi {
  const [, found] = Object.entries(abis).find(([key]) => key === name) ?? []
  if (found !== undefined) return found
  const names = Object.keys(abis).join(', ')
  return usageError(USAGE, `Expected --abi of ${names}, got "${name}"`)
}
