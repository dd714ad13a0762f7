// What the tests share: folders with short paths, the descriptor table, child
// processes that are waited for by what they print, and tools that may be
// missing. Not a test itself.

import {
  type ChildProcess,
  execFileSync,
  type SpawnOptions,
  spawn,
  spawnSync,
} from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs'
import { Socket } from 'node:net'
import { constants as os, release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Test, t as tap } from 'tap'

import { tcpPair } from '../examples/gotchas/tcp-pair.ts'
import { UnixConn, waitWritable } from '../lib/index.ts'
import { host } from '../lib/layouts.ts'
import * as libc from '../lib/libc.ts'
import { sendNow } from '../lib/message.ts'
import { duplicate, newSocketpair } from '../lib/socket/unix.ts'

/** A new folder, removed at the end. Socket paths in it are short enough. */
export function temporaryFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'fd-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/**
 * The descriptors of a process, each as `number -> what it refers to`. Without
 * the one that reads the folder, and without the cache of tsx, which is written
 * while the script runs.
 */
export function openFds(pid: number | 'self' = 'self'): string[] {
  const folder = `/proc/${pid}/fd`
  const fds: string[] = []
  for (const fd of readdirSync(folder)) {
    try {
      const target = readlinkSync(join(folder, fd))
      if (!/\/fd$|\/tsx-\d+(\/|$)/.test(target)) fds.push(`${fd} -> ${target}`)
    } catch {
      // The folder's own descriptor is closed by now.
    }
  }
  return fds.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10))
}

/** A test at whose end the descriptors are open that were open before. */
export function leakFree(
  name: string,
  body: (t: Test) => Promise<unknown>,
  skip: string | false = false,
): void {
  tap.test(name, { skip }, async (t) => {
    await epollInPlace()
    const before = openFds()
    await body(t)
    // Node closes files in its thread pool: what it has begun may take a while.
    const isBefore = (): boolean => openFds().join() === before.join()
    await until('the descriptors of before', isBefore, 20).catch(() => {})
    t.strictSame(openFds(), before, 'no descriptor leaked')
  })
}

// The one epoll instance of a thread is made when it is first needed, and stays.
async function epollInPlace(): Promise<void> {
  const [one, other] = newSocketpair()
  await waitWritable(one)
  closeSync(one)
  closeSync(other)
}

/**
 * The environment for a child that runs as a user's would. The test runner
 * reaches into every Node process that is started here, and would count what
 * tsx made of our files as covered: coverage could not fail.
 */
export function plainEnv(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, ...env } = process.env
  for (const name of Object.keys(env)) if (/TAP/.test(name)) delete env[name]
  return { ...env, _TAPJS_PROCESSINFO_COVERAGE_: '0', ...extra }
}

/**
 * The same for a child whose free descriptors are counted: tsx writes its cache
 * in the background, each file through a descriptor of its own.
 */
export function envWithoutCache(): NodeJS.ProcessEnv {
  return plainEnv({ TSX_DISABLE_CACHE: '1' })
}

// Node warns once that node:ffi is experimental; the tests expect no warnings.
const quiet =
  process.env.FDPASS_FFI === 'node'
    ? ['--disable-warning=ExperimentalWarning']
    : []

/** The command and arguments that run one of the project's scripts. */
export function script(file: string, ...args: string[]): string[] {
  return [process.execPath, ...quiet, '--import', 'tsx', file, ...args]
}

/** A child process, killed at the end, with what it printed so far. */
export class Running {
  readonly child: ChildProcess
  stdout = ''
  stderr = ''
  readonly exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  readonly #command: string

  constructor(t: Test, command: readonly string[], options: SpawnOptions = {}) {
    const [file = '', ...args] = command
    this.#command = command.join(' ')
    this.child = spawn(file, args, { env: plainEnv(), ...options })
    // A character may be cut between two reads.
    this.child.stdout?.setEncoding('utf8')
    this.child.stderr?.setEncoding('utf8')
    this.child.stdout?.on('data', (chunk) => {
      this.stdout += chunk
    })
    this.child.stderr?.on('data', (chunk) => {
      this.stderr += chunk
    })
    this.exit = new Promise((resolve, reject) => {
      this.child.once('error', reject)
      this.child.once('close', (code, signal) => resolve({ code, signal }))
    })
    this.exit.catch(() => {})
    t.teardown(() => {
      this.child.kill('SIGKILL')
      return this.exit.catch(() => {})
    })
  }

  get pid(): number {
    return this.child.pid ?? -1
  }

  /** Resolves once `pattern` was printed (stdout, stderr), with its match. */
  async printed(pattern: RegExp, seconds = 120): Promise<RegExpMatchArray> {
    const giveUp = AbortSignal.timeout(seconds * 1000)
    let ended = false
    const end = this.exit.then(
      () => {
        ended = true
      },
      () => {
        ended = true
      },
    )
    for (;;) {
      const match = `${this.stdout}\n${this.stderr}`.match(pattern)
      if (match) return match
      if (giveUp.aborted || ended) {
        throw new Error(
          `Expected ${pattern} from ${this.#command}, got:\n${this.stdout}\n${this.stderr}`,
        )
      }
      await Promise.race([output(this.child, giveUp), end])
    }
  }
}

/** Resolves when the child has printed something, or `giveUp` is aborted. */
function output(child: ChildProcess, giveUp: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      child.stdout?.off('data', done)
      child.stderr?.off('data', done)
      giveUp.removeEventListener('abort', done)
      resolve()
    }
    child.stdout?.on('data', done)
    child.stderr?.on('data', done)
    giveUp.addEventListener('abort', done)
  })
}

/** Runs a command to its end. */
export async function run(
  t: Test,
  command: readonly string[],
  options: SpawnOptions & { input?: string } = {},
) {
  const { input, ...rest } = options
  const running = new Running(t, command, rest)
  if (input !== undefined) running.child.stdin?.end(input)
  const { code, signal } = await running.exit
  return { code, signal, stdout: running.stdout, stderr: running.stderr }
}

/** A server of this repository, ready on `path`, or in a new folder. */
export async function startServer(
  t: Test,
  file = 'server.ts',
  path = join(temporaryFolder(t), 's'),
) {
  const server = new Running(t, script(file, path))
  await server.printed(/^Server ready on .*, pid \d+$/m)
  return { path, server }
}

/** Source of a listener that prints a warning, unless it is of node:ffi. */
export const onWarning = `({ name, message }) => {
  if (name !== 'ExperimentalWarning') console.log(message)
}`

/**
 * Runs `body`, in which `lib` is the public interface and `argv` are `args`, in
 * a worker thread of a new process. What it prints, and each warning of the
 * process, are in `stdout`; then comes the worker's exit code.
 */
export function runInWorker(t: Test, body: string, ...args: string[]) {
  const worker = `
    import { workerData } from 'node:worker_threads'
    import { tsImport } from 'tsx/esm/api'
    const [root, ...argv] = workerData
    process.on('warning', ${onWarning})
    const lib = await tsImport('./lib/index.ts', root)
    ${body}`
  const source = `
    import { pathToFileURL } from 'node:url'
    import { Worker } from 'node:worker_threads'
    process.on('warning', ${onWarning})
    const root = pathToFileURL('server.ts').href
    new Worker(${JSON.stringify(worker)}, {
      eval: true,
      execArgv: ['--input-type=module'],
      workerData: [root, ...process.argv.slice(1)],
    })
      .on('exit', (code) => console.log(code))`
  return run(t, [...script('--input-type=module', '-e'), source, ...args])
}

/** A reason to skip if a tool is missing, else false: `{ skip: missing('cc') }`. */
export function missing(...tools: string[]): string | false {
  for (const tool of tools) {
    try {
      execFileSync('sh', ['-c', `command -v ${tool}`], { stdio: 'ignore' })
    } catch {
      return `${tool} is not installed`
    }
  }
  return false
}

/**
 * A reason to skip if the C library, or the kernel, does not have the call, else
 * false. With -1 for its first argument each of these fails, and does nothing.
 */
export function missingCall(
  name: 'pidfd_open' | 'preadv2' | 'statx',
): string | false {
  const params = ['int', 'int', 'int', 'int', 'int'] as const
  const result = libc.declareOptional(name, 'int', params)(-1, 0, 0, 0, 0)
  return result === -os.errno.ENOSYS && `there is no ${name}(2)`
}

/** pipe(2), by a detour: Node has no call for it, but opens a FIFO. */
export function pipe(): { r: number; w: number } {
  const folder = mkdtempSync(join(tmpdir(), 'fd-'))
  const path = join(folder, 'fifo')
  execFileSync('mkfifo', [path])
  // Opened for both, it does not wait for the other end.
  const both = openSync(path, constants.O_RDWR)
  const r = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const w = openSync(path, constants.O_WRONLY)
  closeSync(both)
  rmSync(folder, { recursive: true })
  return { r, w }
}

/**
 * pipe(2), anonymous: what a shell makes for `|`. `shared` is another number
 * for the open file description of `r`. By another detour: a child that holds
 * the pipe sends it.
 */
export async function anonymousPipe(t: Test) {
  const [ours, theirs] = newSocketpair()
  const source =
    'import os, socket; s = socket.socket(fileno=3); ' +
    "socket.send_fds(s, [b'x'], list(os.pipe()))"
  const child = new Running(t, ['python3', '-c', source], {
    stdio: ['ignore', 'pipe', 'pipe', theirs],
  })
  closeSync(theirs)
  const conn = UnixConn.fromFd(ours)
  const { fds: [r = -1, w = -1] = [] } = (await conn.recvFds()) ?? {}
  conn.close()
  await child.exit
  return { r, w, shared: duplicate(r) }
}

// int setsockopt(int fd, int level, int name, const void *value,
//                socklen_t len)
const option = ['int', 'int', 'int', 'pointer', 'uint'] as const
const setsockopt = libc.declare('setsockopt', 'int', option)

/**
 * A TCP socket whose last close(2) would wait an hour for its peer to read, by
 * SO_LINGER; and the peer. Both are the caller's to close.
 */
export function lingering(): { fd: number; peer: number } {
  const [fd, peer] = tcpPair()
  const { SOL_SOCKET, SO_LINGER } = host.constants
  const linger = libc.allocate(8)
  linger.bytes.writeInt32LE(1)
  linger.bytes.writeInt32LE(3600, 4)
  const result = setsockopt(fd, SOL_SOCKET, SO_LINGER, linger.address, 8)
  libc.check('setsockopt', result)
  const message = { data: Buffer.alloc(65536), control: Buffer.alloc(0) }
  while (sendNow(fd, message) > 0);
  return { fd, peer }
}

/** Reads a socket to its end, and closes it. */
export async function readToEnd(fd: number): Promise<void> {
  await once(new Socket({ fd }).resume(), 'close')
}

/** declare() of lib/libc.ts, which gives `call` for the function `name`. */
export function declaring(name: string, call: (...values: never[]) => number) {
  const declare = (...signature: Parameters<typeof libc.declare>): unknown =>
    signature[0] === name ? call : libc.declare(...signature)
  return { declare: declare as typeof libc.declare }
}

/** Compiles a C program into `folder` and returns the path of the executable. */
export function compileC(folder: string, source: string): string {
  const output = join(folder, 'program')
  execFileSync('cc', ['-Wall', '-Werror', '-o', output, source])
  return output
}

/**
 * The descriptors of another process, once they have stayed the same for a
 * while: at its start Node, or tsx, has some open for a moment.
 */
export async function settledFds(pid: number): Promise<string[]> {
  let before = openFds(pid)
  let same = 0
  await until('the descriptors of a process that has settled', () => {
    const fds = openFds(pid)
    same = fds.join() === before.join() ? same + 1 : 0
    before = fds
    return same === 50
  })
  return before
}

/** Whether a process is stopped: by SIGSTOP, SIGTSTP or SIGTTIN. */
export function isStopped(pid: number | string): boolean {
  return /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
}

/** Waits until `condition` holds; throws with `what` if it does not in time. */
export async function until(
  what: string,
  condition: () => boolean,
  seconds = 120,
): Promise<void> {
  const end = Date.now() + seconds * 1000
  while (!condition()) {
    if (Date.now() > end) throw new Error(`Expected in ${seconds} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/**
 * Lets the event loop go round, which looks each time at what is ready. For a
 * callback that must not come: had it been due, it would have come by the end.
 */
export async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn++) {
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/**
 * A reason to skip if no script can be run as user 65534 (nobody), else false:
 * only root can, and only where that user may read this folder and Node.
 */
export function missingNobody(): string | false {
  if (process.getuid?.() !== 0) return 'only root can run a script as nobody'
  const read = "require('fs').readFileSync('package.json')"
  const nobody = { uid: 65534, gid: 65534, env: plainEnv() }
  const { status } = spawnSync(process.execPath, ['-e', read], nobody)
  return status !== 0 && `nobody cannot read ${process.cwd()} or run Node`
}

/**
 * A command that runs another as a user who has no other process, so that
 * nothing else counts towards what the kernel limits for each user. For root.
 */
export function asNewUser(): string[] {
  const id = randomInt(10_000, 60_000)
  const ids = [`--reuid=${id}`, `--regid=${id}`, '--clear-groups']
  // tsx would leave a folder behind for each user.
  return ['env', 'TSX_DISABLE_CACHE=1', 'setpriv', ...ids]
}

/** The reason to skip what needs terminal(), if there is one. */
export const noTerminal = { skip: missing('python3', 'sh') }

/** A shell under a pseudo-terminal of its own. What is typed is echoed. */
export async function terminal(t: Test) {
  const python = 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)'
  const shell = new Running(t, ['python3', '-c', python, 'sh'])
  const type = (text: string): void => {
    shell.child.stdin?.write(text)
  }
  // The quotes tell the answer from the echo.
  type("echo 'rea''dy'\n")
  await shell.printed(/ready/)
  return { shell, type }
}

/** A reason to skip if the kernel refuses no descriptors, else false. */
export function lacksPassRights(): string | false {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  const hasOption = major > 6 || (major === 6 && minor >= 16)
  if (process.platform === 'linux' && hasOption) return false
  return 'SO_PASSRIGHTS is missing: needs Linux 6.16'
}
