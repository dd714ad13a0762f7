#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../lib/script/run" "$0" "$@"

// Does anything grow? Ten million messages with a descriptor each come from
// soak-peer.ts, or with --there-and-back a hundred thousand descriptors go to
// it and return. After each hundredth both processes rest and are looked at:
// once the first tenth is through (but at least 50,000), neither may have one
// descriptor more, nor 32 MiB more memory than before. 32 MiB are 3 bytes a
// message: memory or a descriptor that is kept for ever shows. Open proc(5)
// with it.

import { spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
} from 'node:fs'
import { join } from 'node:path'
import { socketpair } from '../lib/index.ts'
import { commandLine, fail, help, numberOption } from '../lib/script/cli.ts'
import { residentSet } from './processes.ts'

const USAGE = `Usage: bench/soak-messages.ts [OPTIONS]
Passes descriptors for a long time; exits 1 if memory or descriptors grow. Part
of soak.ts.
  --messages N      so many (10000000; there and back 100000)
  --minutes N       stop after so many (10)
  --there-and-back  send descriptors to a process that returns them`

/** Messages before anything is judged, at least. */
const WARM_UP = 50_000

const { values } = commandLine(
  USAGE,
  {
    options: {
      ...help,
      messages: { type: 'string' },
      minutes: { type: 'string', default: '10' },
      'there-and-back': { type: 'boolean', default: false },
    },
  },
  [0, 0],
)
const returning = values['there-and-back']
const messages = numberOption(
  USAGE,
  '--messages',
  values.messages ?? (returning ? '100000' : '10000000'),
  [2 * WARM_UP, Number.MAX_SAFE_INTEGER],
)
const warmUp = Math.max(messages / 10, WARM_UP)
const minutes = numberOption(USAGE, '--minutes', values.minutes, [1, 9999])
const end = performance.now() + minutes * 60_000

/** In KiB, beyond the most that the warm-up needed. */
const GROWTH = 32 * 1024

/** Sent before the first is waited for. */
const WINDOW = 64

if (!existsSync('/proc/self/fd')) fail('Expected Linux: no /proc to look at')

const [conn, theirs] = socketpair()
const peer = spawn(
  process.execPath,
  ['--import', 'tsx', join(import.meta.dirname, 'soak-peer.ts')],
  { stdio: ['ignore', 'inherit', 'inherit', theirs.fd] },
)
theirs.close()
process.once('exit', () => peer.kill())
const processes = [
  { name: 'here', pid: process.pid, fds: 0, memory: 0 },
  { name: 'peer', pid: peer.pid, fds: 0, memory: 0 },
]
const sent = openSync('/dev/null', 'r')

await rest()
const step = Math.ceil(messages / 100)
const start = performance.now()
let passed = 0
let printed = 0
while (passed < messages && performance.now() < end) {
  const some = Math.min(step, messages - passed)
  await (returning ? thereAndBack(some) : take(some)).catch(fail)
  passed += some
  await rest()
  const report = look(passed <= warmUp)
  if (performance.now() - printed < 2000 && passed < messages) continue
  printed = performance.now()
  const seconds = ((printed - start) / 1000).toFixed(0)
  console.log(`${`${passed}`.padStart(9)}  ${seconds.padStart(4)} s  ${report}`)
}

conn.close()
const us = (((performance.now() - start) * 1000) / passed).toFixed(1)
console.log(`Flat over ${passed} of ${messages} messages, ${us} µs each`)
if (passed < 2 * warmUp) fail('Too few after the warm-up: allow more minutes')

async function take(some: number): Promise<void> {
  const question = Buffer.alloc(4)
  question.writeUInt32LE(some)
  await conn.sendmsg(question)
  for (let received = 0; received < some; ) {
    for (const fd of await descriptors()) {
      closeSync(fd)
      received++
    }
  }
}

async function thereAndBack(some: number): Promise<void> {
  const { ino, dev } = fstatSync(sent)
  for (let left = some; left > 0; left -= WINDOW) {
    const window = Math.min(left, WINDOW)
    const sends = Array.from({ length: window }, () =>
      conn.sendFds('x', [sent]),
    )
    await Promise.all(sends)
    for (let received = 0; received < window; ) {
      for (const fd of await descriptors()) {
        const returned = fstatSync(fd)
        closeSync(fd)
        received++
        if (returned.ino === ino && returned.dev === dev) continue
        throw new Error('Expected the descriptor that was sent, got another')
      }
    }
  }
}

async function descriptors(): Promise<number[]> {
  const message = await conn.recvFds()
  if (message === null) throw new Error('Expected messages, got end of file')
  return message.fds
}

// A question for no messages is answered when all else is done and closed.
async function rest(): Promise<void> {
  await conn.sendmsg(Buffer.alloc(4))
  await descriptors().catch(fail)
}

// Notes what the processes have while they warm up, and compares afterwards.
function look(warmingUp: boolean): string {
  const seen = processes.map((known) => {
    const fds = readdirSync(`/proc/${known.pid}/fd`).length
    const memory = residentSet(known.pid)
    if (warmingUp) {
      known.fds = fds
      known.memory = Math.max(known.memory, memory)
    } else if (fds > known.fds) {
      fail(`${known.name}: expected ${known.fds} descriptors, got ${fds}`)
    } else if (memory > known.memory + GROWTH) {
      const most = known.memory + GROWTH
      fail(`${known.name}: expected at most ${most} KiB, got ${memory} KiB`)
    }
    return `${known.name}: ${memory} KiB, ${fds} descriptors`
  })
  return `${seen.join('; ')}${warmingUp ? ' (warming up)' : ''}`
}
