#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A service manager, as far as it takes to keep a service's descriptors while
// the service is not running: what systemd calls its file descriptor store. The
// service sends them in datagrams, each with a name. When it has ended, for
// whatever reason, it is started anew, and inherits them.
//
// Partner: service.ts, or any other service that knows sd_notify(3), such as
// systemd-logind. You see a line for each thing that it says. Open unix(7) at
// SCM_CREDENTIALS, sd_pid_notify_with_fds(3), systemd.service(5) at
// FileDescriptorStoreMax=.
//
// New here: a socket without connections, to which everyone can send who may
// write to its file. Who has sent is known all the same: the kernel adds the
// sender's process, user and group to each datagram (SO_PASSCRED).
//
// Simplification: systemd also drops a descriptor that poll(2) reports to be
// hung up, unless the service has said FDPOLL=0, and one that it has already.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

import { closeReceived, type Datagram, UnixDatagram } from '../../lib/index.ts'
import {
  commandLine,
  cutAtCommand,
  defaultSocketPath,
  fail,
  help,
  messageOf,
  numberOption,
  onStop,
  print,
  usageError,
} from '../../lib/script/cli.ts'

const USAGE = `Usage: ./examples/fdstore/manager.ts [OPTIONS] COMMAND...
Starts COMMAND, keeps the descriptors that it sends to NOTIFY_SOCKET, and starts
it anew with them whenever it ends. Ctrl-C ends both.
  -m, --most NUMBER  of descriptors to keep (512)`

/** Bytes of a datagram that are read: systemd's NOTIFY_BUFFER_MAX. */
const NOTICE_SIZE = 4096

/** Before the command is started anew, in ms: RestartSec= in systemd. */
const RESTART_DELAY = 100

/** So many starts in so many ms, and no more: StartLimitBurst= in systemd. */
const STARTS = 5
const STARTS_INTERVAL = 10_000

/** How long the command may take to end, in ms. */
const PATIENCE = 10_000

const options = {
  ...help,
  most: { type: 'string', short: 'm', default: '512' },
} as const
const { args, command } = cutAtCommand(options)
const { values } = commandLine(USAGE, { args, options }, [0, 0])
const most = numberOption(USAGE, '--most', values.most, [0, 999_999])
if (command.length === 0) usageError(USAGE, 'Expected COMMAND, got none')

/** In the order in which they came. Several may have the same name. */
const store: { readonly name: string; readonly fd: number }[] = []

const path = defaultSocketPath(`fdpass-notify-${process.pid}`)
const notices = await openNotices().catch(fail)
const reading = readNotices()

/** Called when a datagram arrives that this process has sent itself. */
let onOwnNotice = (): void => {}

const stop = new AbortController()
let service: ChildProcess | undefined
onStop((signal) => {
  stop.abort()
  // Ctrl-C has reached it already: it is for the whole foreground.
  if (signal !== 'SIGINT') service?.kill(signal)
  setTimeout(() => service?.kill('SIGKILL'), PATIENCE).unref()
})

const failure = await keepRunning().catch((error: Error) => error)
notices.close()
await reading
for (const { fd } of store) closeReceived(fd)
if (failure) fail(failure)
print(`Stopped, descriptors closed: ${store.length}`)

// Until this is to stop. Throws for a service that ends again and again.
async function keepRunning(): Promise<void> {
  let starts: number[] = []
  const { signal } = stop
  while (!signal.aborted) {
    const now = performance.now()
    starts = starts.filter((start) => now - start < STARTS_INTERVAL)
    if (starts.length === STARTS)
      throw new Error(`Started ${STARTS} times in 10 s, not once more`)
    starts.push(now)
    await runOnce()
    await sleep(RESTART_DELAY, undefined, { signal }).catch(() => {})
  }
}

async function runOnce(): Promise<void> {
  service = start()
  print(`Started pid ${service.pid}, descriptors: ${store.length}`)
  const [code, signal] = await once(service, 'exit')
  await allRead()
  print(`pid ${service.pid}: ended, ${signal ?? `exit code ${code}`}`)
  service = undefined
}

// LISTEN_PID has to be the pid of the command, which is known only once that
// process exists. So the shell that becomes the command sets it. A command that
// is given no descriptors is not told of any, nor of those that this process
// may have been given.
function start(): ChildProcess {
  const { LISTEN_PID: _pid, LISTEN_FDS: _fds, ...env } = process.env
  delete env.LISTEN_FDNAMES
  env.NOTIFY_SOCKET = path
  if (store.length > 0) {
    env.LISTEN_FDS = `${store.length}`
    env.LISTEN_FDNAMES = store.map(({ name }) => name).join(':')
  }
  const claim = store.length > 0 ? 'export LISTEN_PID=$$; ' : ''
  return spawn('/bin/sh', ['-c', `${claim}exec "$@"`, 'sh', ...command], {
    env,
    stdio: ['inherit', 'inherit', 'inherit', ...store.map(({ fd }) => fd)],
  })
}

// Resolved when all is read that was sent before: datagrams come in the order in
// which they were sent, and those of a process that has ended are there still.
async function allRead(): Promise<void> {
  const read = new Promise<void>((resolve) => {
    onOwnNotice = resolve
  })
  await notices.send('', { to: path })
  await read
}

function openNotices(): Promise<UnixDatagram> {
  return UnixDatagram.open({ path, passCredentials: true })
}

async function readNotices(): Promise<void> {
  for (;;) {
    try {
      const notice = await notices.receive({ maxBytes: NOTICE_SIZE })
      if (notice === null) return
      take(notice)
    } catch (error) {
      print(`Lost a notice: ${messageOf(error)}`)
    }
  }
}

// Owns the descriptors. Those that are not stored are closed; for BARRIER=1 that
// is the answer: its sender waits until its pipe is closed.
function take({ data, fds, credentials }: Datagram): void {
  const pid = credentials?.pid
  if (pid === process.pid) return onOwnNotice()
  if (pid !== service?.pid) {
    for (const fd of fds) closeReceived(fd)
    print(`pid ${pid}: is not the service, ignored`)
    return
  }
  const words = wordsOf(`${data}`)
  const name = words.get('FDNAME')
  const isStored = words.get('FDSTORE') === '1'
  for (const fd of fds) {
    if (isStored) keep(isName(name) ? name : 'stored', fd)
    else closeReceived(fd)
  }
  if (words.get('FDSTOREREMOVE') === '1' && name !== undefined) remove(name)
  if (words.get('READY') === '1') print(`pid ${pid}: ready`)
}

function keep(name: string, fd: number): void {
  if (store.length >= most) {
    closeReceived(fd)
    print(`No room for ${name}: the store has ${most} descriptors`)
    return
  }
  store.push({ name, fd })
  print(`Stored ${name} as fd ${fd}`)
}

function remove(name: string): void {
  for (const { fd } of store.filter((one) => one.name === name)) {
    closeReceived(fd)
    print(`Removed ${name}, fd ${fd}`)
  }
  const others = store.filter((one) => one.name !== name)
  store.splice(0, store.length, ...others)
}

/** Whether it can be one of those that stand in LISTEN_FDNAMES. */
function isName(name: string | undefined): name is string {
  return name !== undefined && /^[ -9;-~]{0,255}$/.test(name)
}

/** A notice is lines of the form NAME=VALUE. */
function wordsOf(text: string): Map<string, string> {
  return new Map(
    text.split('\n').map((line): [string, string] => {
      const at = line.indexOf('=')
      return [line.slice(0, at), line.slice(at + 1)]
    }),
  )
}
