// What the gotchas share: a socket pair with the two calls on it, as bare as
// they are in C, the line that each prints, and --help. Each gotcha is a process
// of its own, whose descriptors the kernel closes at its end.

import { mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { cmsgSpace, descriptorsIn, unixRights } from '../../lib/cmsg.ts'
import { host } from '../../lib/layouts.ts'
import { allocate, declare, systemError } from '../../lib/libc.ts'
import { initMsghdr, readMsghdr, setParts } from '../../lib/msghdr.ts'
import { codeOf, commandLine, help } from '../../lib/script/cli.ts'
import { printable } from '../../lib/script/printable.ts'
import { newSocketpair } from '../../lib/socket/unix.ts'

// ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
const sendmsg = declare('sendmsg', 'size', ['int', 'pointer', 'int'])
// ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
const recvmsg = declare('recvmsg', 'size', ['int', 'pointer', 'int'])

const script = process.argv[1] ?? ''

/** Those that have options, and read them themselves. */
const WITH_OPTIONS = ['truncation.ts']

// Before the gotcha begins, as it imports this file.
if (!WITH_OPTIONS.includes(basename(script)))
  commandLine(usageOf(script), { options: help }, [0, 0])

// Its header says what it tries.
function usageOf(file: string): string {
  const source = readFileSync(file, 'utf8')
  const [, header = ''] = /\n\n((?:\/\/.*\n)+)/.exec(source) ?? []
  return `Usage: ./examples/gotchas/${basename(file)}
${header.replaceAll(/^\/\/ ?/gm, '')}
Tries it on this machine, and prints in one line whether it is so, what is
claimed, what was expected and what was observed. Exits 1 if it is not so.`
}

/** What the gotchas pass when it does not matter what. */
export const NULL = openSync('/dev/null', 'r')

export type Message = {
  readonly data: string
  readonly fds: number[]
  /** MSG_CTRUNC in msg_flags. */
  readonly truncated: boolean
}

/** Prints the result, and exits 1 if it is not as expected. */
export function check(result: {
  readonly claim: string
  readonly expected: string
  readonly observed: string
}): void {
  const { claim, expected, observed } = result
  const holds = observed === expected
  if (!holds) process.exitCode = 1
  print([holds ? 'holds' : 'DIFFERS', claim, expected, observed])
}

/** Prints why this cannot be tried here. */
export function skip(claim: string, reason: string): never {
  print(['skipped', claim, '', reason])
  process.exit(0)
}

function print(columns: readonly string[]): void {
  console.log(printable(columns.join(' | ')))
}

/** socketpair(2), non-blocking: with nothing to receive, receive() says so. */
export const pair = newSocketpair

const SIZE = 65536
const CONTROL = 1024
const IOVEC = CONTROL + SIZE
const DATA = IOVEC + host.iovec.size
const memory = allocate(DATA + SIZE)
initMsghdr(memory.bytes, 0, memory.base + IOVEC, host)

/** sendmsg(2) of `data` with one control message of `fds`, if there are any. */
export function send(
  fd: number,
  data: string,
  fds: readonly number[] = [],
): number {
  const control = fds.length > 0 ? unixRights(...fds) : Buffer.alloc(0)
  const dataLength = memory.bytes.write(data, DATA)
  memory.bytes.set(control, CONTROL)
  setMessage(dataLength, control.length)
  const { MSG_DONTWAIT, MSG_NOSIGNAL } = host.constants
  return sendmsg(fd, memory.address, MSG_DONTWAIT | MSG_NOSIGNAL)
}

/**
 * recvmsg(2) with room for so many bytes of data and of control messages.
 * Undefined if there is nothing to receive.
 */
export function receive(
  fd: number,
  { bytes = 1000, room = cmsgSpace(254 * 4) } = {},
): Message | undefined {
  setMessage(bytes, room)
  const { MSG_DONTWAIT, MSG_CMSG_CLOEXEC, MSG_CTRUNC } = host.constants
  const flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC
  const length = recvmsg(fd, memory.address, flags)
  if (length === -constants.errno.EAGAIN) return undefined
  if (length < 0) throw systemError('recvmsg', length)
  const header = readMsghdr(memory.bytes, 0, host)
  const control = memory.bytes.subarray(CONTROL, CONTROL + header.controlLength)
  return {
    data: memory.bytes.toString('utf8', DATA, DATA + length),
    fds: descriptorsIn(control),
    truncated: (header.flags & MSG_CTRUNC) !== 0,
  }
}

/** The number that a descriptor gets by being sent and received. */
export function pass(fd: number): number {
  const [near, far] = pair()
  send(near, 'x', [fd])
  return receive(far)?.fds[0] ?? -1
}

function setMessage(dataLength: number, controlLength: number): void {
  const control = memory.base + CONTROL
  const parts = { data: memory.base + DATA, dataLength, control, controlLength }
  setParts(memory.bytes, 0, IOVEC, parts, host)
}

/** `"abc" with 1 descriptor`. */
export function show(message: Message | undefined): string {
  if (!message) return 'nothing'
  const { length } = message.fds
  const count = `${length} descriptor${length === 1 ? '' : 's'}`
  return `${JSON.stringify(message.data)} with ${count}`
}

/** The name of an error, from what a call returned. */
export function nameOf(result: number): string {
  return result < 0 ? (systemError('', result).code ?? '') : 'no error'
}

/**
 * Whether the other end of a pair is closed, wherever it was: then a read
 * returns 0. Does not wait.
 */
export function hasEnded(end: number): boolean {
  try {
    return readSync(end, Buffer.alloc(1)) === 0
  } catch (error) {
    if (codeOf(error) === 'EAGAIN') return false
    throw error
  }
}

/** Waits until `condition` holds, 30 seconds at most. Whether it holds. */
export async function until(condition: () => boolean): Promise<boolean> {
  const end = performance.now() + 30_000
  while (!condition()) {
    if (performance.now() > end) return false
    await sleep(5)
  }
  return true
}

/** A path for a socket, in a folder that is gone with the process. */
export function temporaryPath(name = 's'): string {
  const folder = mkdtempSync(join(tmpdir(), 'gotcha-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return join(folder, name)
}

/** What proc(5) tells of a descriptor and its open file description. */
export function fdInfo(fd: number): { offset: number; flags: number } {
  const text = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
  const [, offset = '', flags = ''] =
    /pos:\s*(\d+)\s*flags:\s*(\d+)/.exec(text) ?? []
  return { offset: Number(offset), flags: Number.parseInt(flags, 8) }
}
