// examples/bytes.ts, run as a user runs it. What it prints is read back into
// bytes, and those are compared with what C has, with what the functions that
// it names write, and with what the kernel is known to do.

import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { buildRights, spaceFor } from '../../lib/cmsg.ts'
import { abis, host } from '../../lib/layouts.ts'
import { initMsghdr, setParts } from '../../lib/msghdr.ts'
import { compileC } from '../support/c.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { plainEnv, run, script } from '../support/processes.ts'

const FILE = 'examples/bytes.ts'
const HERE = `${process.platform}-${process.arch}`

const notLinux64 =
  (process.platform !== 'linux' || host.pointerSize !== 8) &&
  'the numbers are those of 64-bit Linux'

type Row = {
  readonly offset: number
  readonly size: number
  /** In hexadecimal; of a line that stands for many, only the first ones. */
  readonly hex: string
  readonly name: string
  readonly meaning: string
}

type Block = {
  readonly title: string
  readonly size: number
  readonly start: number
  readonly isAsBefore: boolean
  readonly rows: readonly Row[]
  readonly by: string
}

/** What the memory of one message holds at one time. */
type Snapshot = {
  readonly size: number
  readonly base: number
  readonly blocks: readonly Block[]
}

type Dump = {
  readonly text: string
  readonly snapshots: readonly Snapshot[]
}

/** Runs it, and reads what it prints. */
async function dump(t: Test, ...args: string[]): Promise<Dump> {
  const { code, stdout, stderr } = await run(t, script(FILE, ...args))
  t.equal(stderr, '')
  t.equal(code, 0, args.join(' '))
  const long = stdout.split('\n').filter((line) => line.length > 80)
  t.strictSame(long, [], 'fits 80 columns')
  const [, ...sections] = stdout.split(/^(?=.+: memory of \d+ bytes at)/m)
  return { text: stdout, snapshots: sections.map(snapshotOf) }
}

function snapshotOf(text: string): Snapshot {
  const [title = '', ...blocks] = text.split(/^(?=.+ at memory \+ \d)/m)
  const [, size, base] = /of (\d+) bytes at (0x[0-9a-f]+)/.exec(title) ?? []
  return {
    size: Number(size),
    base: Number(base),
    blocks: blocks.map(blockOf),
  }
}

function blockOf(text: string): Block {
  const [, title = '', size, start, same] =
    /^(.+), (\d+) bytes? at memory \+ (\d+)(: as before)?$/m.exec(text) ?? []
  const rows = text.matchAll(/^ *(\d+) {2}(.{23}) {2}(.{14}) {2}(.+)$/gm)
  const [, by = ''] = /^Written by (.+)$/m.exec(text) ?? []
  return {
    title,
    size: Number(size),
    start: Number(start),
    isAsBefore: same !== undefined,
    rows: [...rows].map(rowOf),
    by,
  }
}

function rowOf([, offset, bytes = '', name = '', meaning = '']: string[]): Row {
  const [, many] = /… (\d+) bytes/.exec(bytes) ?? []
  const hex = bytes.replace(/….*/, '').replaceAll(' ', '')
  return {
    offset: Number(offset),
    size: many === undefined ? hex.length / 2 : Number(many),
    hex,
    name: name.trim(),
    meaning,
  }
}

function blockIn(snapshot: Snapshot | undefined, title: string): Block {
  const block = snapshot?.blocks.find((one) => one.title === title)
  if (block) return block
  throw new Error(`Expected a block ${title}, got none`)
}

/** The bytes of a block that has no line for many. */
function bytesOf({ rows }: Block): string {
  return rows.map(({ hex }) => hex).join('')
}

function meaningOf({ rows }: Block, name: string): string | undefined {
  return rows.find((row) => row.name === name)?.meaning
}

/** The descriptors of a control message, as numbers in the text. */
function fdsIn({ rows }: Block): number[] {
  return rows.flatMap(({ name, meaning }) => {
    const [, fd] = /^fd (\d+)/.exec(meaning) ?? []
    return name === 'descriptor' ? [Number(fd)] : []
  })
}

/** A number of 32 bits, as it lies in memory. */
function int(value: number): string {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value)
  return bytes.toString('hex')
}

/**
 * Expects that no byte is left out: the lines of a block follow each other to
 * its end, and so do the blocks in the memory.
 */
function complete(t: Test, snapshot: Snapshot | undefined): void {
  let start = 0
  for (const block of snapshot?.blocks ?? []) {
    t.equal(block.start, start, `where ${block.title} begins`)
    let offset = 0
    for (const row of block.rows) {
      t.equal(row.offset, offset, `where ${block.title} ${row.name} begins`)
      t.ok(row.size > 0)
      if (row.name === 'padding') t.ok(row.size < 8, 'not more than needed')
      offset += row.size
    }
    t.equal(offset, block.size, `${block.title} is as large as its parts`)
    start += block.size
  }
  t.equal(start, snapshot?.size, 'the memory is as large as its parts')
}

t.test(
  'one descriptor: the exact bytes, sent and received',
  { skip: notLinux64 },
  async (t) => {
    const { text, snapshots } = await dump(t)
    const [before, after, received] = snapshots
    const control = blockIn(before, 'control message')
    const [sent = -1] = fdsIn(control)
    t.strictSame(
      control.rows.map(({ hex, name, meaning }) => [hex, name, meaning]),
      [
        ['1400000000000000', 'cmsg_len', '20: header 16 and one int'],
        ['01000000', 'cmsg_level', '1: SOL_SOCKET'],
        ['01000000', 'cmsg_type', '1: SCM_RIGHTS'],
        [int(sent), 'descriptor', `fd ${sent}`],
        ['00000000', 'padding', 'to a multiple of 8'],
      ],
    )
    t.strictSame(
      after?.blocks.map(({ title, isAsBefore }) => [title, isAsBefore]),
      [
        ['msghdr', true],
        ['iovec', true],
        ['control message', true],
        ['data', true],
      ],
      'sendmsg(2) changes nothing',
    )

    const buffer = blockIn(received, 'control buffer')
    const [fd = -1] = fdsIn(buffer)
    t.not(fd, sent, 'a number of its own')
    t.equal(
      bytesOf(buffer),
      `14000000000000000100000001000000${int(fd)}eeeeeeee`,
    )
    t.equal(meaningOf(buffer, 'descriptor'), `fd ${fd}, sent as fd ${sent}`)
    t.equal(meaningOf(buffer, 'padding'), 'not written')
    t.equal(bytesOf(blockIn(received, 'data')), '78')
    const header = blockIn(received, 'msghdr')
    t.equal(meaningOf(header, 'msg_controllen'), 'was 24, is 24')
    t.equal(meaningOf(header, 'msg_flags'), 'MSG_CMSG_CLOEXEC')
    t.match(text, /^1 sent, 1 received: MSG_CTRUNC is not set\.$/m)
  },
)

t.test(
  'two descriptors: they fill the room of one',
  { skip: notLinux64 },
  async (t) => {
    const { text, snapshots } = await dump(t, '--fds', '2', '--room', '24')
    const [before, , received] = snapshots
    const header = '18000000000000000100000001000000'
    for (const block of [
      blockIn(before, 'control message'),
      blockIn(received, 'control buffer'),
    ]) {
      const [one = -1, two = -1] = fdsIn(block)
      t.not(one, two)
      t.equal(bytesOf(block), header + int(one) + int(two))
      t.equal(meaningOf(block, 'cmsg_len'), '24: header 16 and 2 ints')
    }
    t.match(text, /^24 bytes of control buffer: room for 2 descriptors /m)
    t.match(text, /^2 sent, 2 received: MSG_CTRUNC is not set\.$/m)
  },
)

// What is sent, the room for it, what comes of it, and how much of the room is
// then in use.
for (const [fds, room, come, used] of [
  [3, 24, 2, 24],
  [2, 20, 1, 20],
  [2, 22, 1, 22],
  [1, 19, 0, 0],
  [1, 0, 0, 0],
  [1, 100, 1, 24],
  [253, 1031, 253, 1031],
  [253, 65536, 253, 1032],
] as const) {
  t.test(
    `${fds} sent into ${room} bytes: ${come} arrive`,
    { skip: notLinux64 },
    async (t) => {
      const args = ['--fds', `${fds}`, '--room', `${room}`]
      const { text, snapshots } = await dump(t, ...args)
      const [, , received] = snapshots
      const header = blockIn(received, 'msghdr')
      const isCut = come < fds
      const state = isCut ? 'set' : 'not set'
      t.match(text, `${fds} sent, ${come} received: MSG_CTRUNC is ${state}.\n`)
      const length = `was ${room}, is ${used}`
      t.equal(meaningOf(header, 'msg_controllen'), length)
      const flags = header.rows.find(({ name }) => name === 'msg_flags')
      t.equal(flags?.hex, isCut ? '08000040' : '00000040')
      t.equal(flags?.meaning.includes('MSG_CTRUNC'), isCut)
      complete(t, received)

      const control = meaningOf(header, 'msg_control')
      if (room === 0) {
        t.equal(control, 'NULL')
        return
      }
      t.equal(control, 'memory + 72: the control buffer')
      const buffer = blockIn(received, 'control buffer')
      const unused = buffer.rows.find(({ name }) => name === 'unused')
      t.equal(unused?.size ?? 0, room - used)
      if (unused) t.equal(unused.meaning, 'not written')
      if (come === 0) return
      t.match(meaningOf(buffer, 'cmsg_len'), `${16 + 4 * come}: header 16 and `)
    },
  )
}

for (const [name, abi] of Object.entries(abis)) {
  t.test(`--abi ${name} accounts for every byte`, async (t) => {
    for (const fds of [1, 2, 8, 9, abi.maxFds]) {
      const args = ['--abi', name, '--fds', `${fds}`]
      const { text, snapshots } = await dump(t, ...args)
      const [before] = snapshots
      complete(t, before)
      t.match(text, `Structs of ${name}.`)
      t.equal(/^Nothing was sent/m.test(text), name !== HERE)
      t.equal(snapshots.length, name === HERE ? 3 : 1)
      const sizes = before?.blocks.map(({ title, size }) => [title, size])
      t.strictSame(sizes, [
        ['msghdr', abi.msghdr.size],
        ['iovec', abi.iovec.size],
        ['control message', spaceFor(4 * fds, abi)],
        ['data', 1],
      ])

      const message = blockIn(before, 'control message')
      const single = fdsIn(message).length
      t.equal(single, fds > 8 ? 4 : fds, 'those with a line')
      const rest = message.rows.find((row) => row.name === 'descriptors')
      t.equal(rest?.size ?? 0, 4 * (fds - single), 'the others have one line')
      if (rest) t.equal(rest.meaning, `${fds - single} more`)

      // Each field of the tables stands where they say.
      const { msghdr, iovec, cmsghdr } = abi
      for (const [title, table] of [
        ['msghdr', msghdr],
        ['iovec', iovec],
        ['control message', cmsghdr],
      ] as const) {
        const { rows } = blockIn(before, title)
        const found = new Map(rows.map((row) => [row.name, row.offset]))
        for (const [field, offset] of Object.entries(table)) {
          if (field === 'size' || field === 'cmsg_data') continue
          t.equal(found.get(field), offset, `${title}.${field}`)
        }
      }
      const first = message.rows.find((row) => row.name === 'descriptor')
      t.equal(first?.offset, cmsghdr.cmsg_data)
    }
  })

  t.test(`--abi ${name}: the named functions write these bytes`, async (t) => {
    const { snapshots } = await dump(t, '--abi', name, '--fds', '7')
    const [{ size, base, blocks } = { size: 0, base: 0, blocks: [] }] =
      snapshots
    const message = blockIn(snapshots[0], 'control message')
    const fds = fdsIn(message)
    t.equal(fds.length, 7)
    const iov = abi.msghdr.size
    const control = iov + abi.iovec.size
    const controlLength = spaceFor(4 * 7, abi)
    const memory = Buffer.alloc(size)
    initMsghdr(memory, 0, base + iov, abi)
    const parts = {
      data: base + control + controlLength,
      dataLength: 1,
      control: base + control,
      controlLength,
    }
    setParts(memory, 0, iov, parts, abi)
    memory.set(buildRights(fds, abi), control)
    memory.write('x', control + controlLength)
    t.equal(blocks.map(bytesOf).join(''), memory.toString('hex'))
  })
}

t.test('the functions that are named exist', async (t) => {
  const { snapshots } = await dump(t, '--fds', '3', '--room', '24')
  const shown = snapshots
    .flatMap(({ blocks }) => blocks)
    .filter(({ isAsBefore }) => !isAsBefore)
  const named = new Set<string>()
  for (const { title, by } of shown) {
    t.ok(by, `who wrote ${title}`)
    for (const [, file = '', names = ''] of by.matchAll(
      /((?:lib|examples)\/\S+\.ts) (\w+(?:, \w+)*)/g,
    )) {
      const source = readFileSync(file, 'utf8')
      for (const name of names.split(', ')) {
        const start = file.startsWith('lib/') ? 'export function' : 'function'
        t.match(source, new RegExp(`^${start} ${name}\\(`, 'm'))
        named.add(`${file} ${name}`)
      }
    }
  }
  t.strictSame([...named].sort(), [
    'examples/bytes.ts compose',
    'examples/bytes.ts makeRoom',
    'lib/cmsg.ts buildRights',
    'lib/msghdr.ts initMsghdr',
    'lib/msghdr.ts setParts',
  ])
})

// musl has the same bytes under other names: a socklen_t, and a pad.
const { header } = process.report.getReport() as {
  readonly header: { readonly glibcVersionRuntime?: string }
}
const noGlibc = header.glibcVersionRuntime === undefined && 'needs glibc'

t.test(
  'each field has the size that it has in C',
  { skip: missing('cc') || noGlibc },
  async (t) => {
    const { snapshots } = await dump(t)
    const [before] = snapshots
    const fields = ['msghdr', 'iovec', 'control message'].flatMap((title) => {
      const { rows } = blockIn(before, title)
      const struct = title === 'control message' ? 'cmsghdr' : title
      return rows
        .filter(({ name }) => !/^(padding|descriptor)$/.test(name))
        .map(({ name, size }) => ({ struct, name, size }))
    })
    t.equal(fields.length, 7 + 2 + 3)
    const lines = fields.map(({ struct, name }) => {
      return `printf("%zu\\n", sizeof(((struct ${struct} *)0)->${name}));`
    })
    const folder = temporaryFolder(t)
    const source = join(folder, 'sizes.c')
    const includes =
      '#define _GNU_SOURCE\n#include <stdio.h>\n#include <sys/socket.h>\n'
    writeFileSync(source, `${includes}int main(void) {${lines.join('')}}\n`)
    const program = compileC(folder, source)
    const sizes = execFileSync(program, { encoding: 'utf8' })
    t.equal(fields.map(({ size }) => `${size}\n`).join(''), sizes)
  },
)

// Prints which descriptors are open before the story begins, at its first line,
// and at the end of the process.
const WATCH = `
  import { readdirSync, readlinkSync } from 'node:fs'
  const openFds = () => readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [fd + ' -> ' + readlinkSync('/proc/self/fd/' + fd)]
    } catch {
      return [] // the folder itself
    }
  })
  let before
  const { log } = console
  console.log = (text) => {
    before ??= openFds()
    log(text)
  }
  process.on('exit', () => {
    console.error(JSON.stringify([before, openFds()]))
  })`

t.test(
  'no descriptor is left open, whatever was lost',
  { skip: process.platform !== 'linux' && 'needs /proc' },
  async (t) => {
    for (const args of [
      [],
      ['--fds', '3', '--room', '20'],
      ['--fds', '253'],
      ['--fds', '253', '--room', '0'],
      ['--abi', 'darwin-arm64'],
    ]) {
      const [node = '', ...rest] = script(FILE, ...args)
      const watch = `data:text/javascript,${encodeURIComponent(WATCH)}`
      const command = [node, '--import', watch, ...rest]
      const env = plainEnv()
      const { code, stderr } = await run(t, command, { env })
      t.equal(code, 0)
      const [before, after]: [string[], string[]] = JSON.parse(stderr)
      t.ok(before.length > 2 && after.length > 2)
      // What is gone since is the business of Node and of tsx.
      const more = after.filter((fd) => !before.includes(fd))
      t.strictSame(more, [], args.join(' '))
    }
  },
)

t.test(
  'without free numbers it shows what came, or says why not',
  { skip: missing('sh') || (process.platform !== 'linux' && 'for Linux') },
  async (t) => {
    const limited = (most: number, ...args: string[]) => {
      const source = `ulimit -n ${most}; exec "$@"`
      return run(t, ['sh', '-c', source, 'sh', ...script(FILE, ...args)])
    }
    const some = await limited(300, '--fds', '200')
    t.match(some, { code: 0, stderr: '' })
    const [, came] =
      /^200 sent, (\d+) received: MSG_CTRUNC is set\.$/m.exec(some.stdout) ?? []
    t.ok(Number(came) > 0 && Number(came) < 200, `${came} came`)
    const none = await limited(100, '--fds', '200')
    t.equal(none.code, 1)
    t.match(none.stderr, /^bytes\.ts: EMFILE: .*\n$/)
  },
)

t.test('--help, and a wrong command line', async (t) => {
  const help = await run(t, script(FILE, '--help'))
  t.match(help, {
    code: 0,
    stdout: /^Usage: \.\/examples\/bytes\.ts /,
    stderr: '',
  })
  for (const name of Object.keys(abis)) t.match(help.stdout, name)
  const names = Object.keys(abis)
  const [foreign = ''] = names.filter((name) => name !== HERE)
  const known = `Expected --abi of ${names.join(', ')}, got`
  const range = `Expected --fds N from 1 to ${host.maxFds}`
  const tooMany = `${host.maxFds + 1}`
  const unread = `Expected no --room: ${foreign} receives nothing here`
  for (const [reason, ...args] of [
    [`${range}, got "0"`, '--fds', '0'],
    [`${range}, got "${tooMany}"`, '--fds', tooMany],
    [`${range}, got "1.5"`, '--fds', '1.5'],
    ['Expected --fds N as a number, got "two"', '--fds', 'two'],
    ['Expected --room N from 0 to 65536, got "65537"', '--room', '65537'],
    ['Expected --room N as a number, got ""', '--room', ''],
    [`${known} "vax"`, '--abi', 'vax'],
    [`${known} "constructor"`, '--abi', 'constructor'],
    [unread, '--abi', foreign, '--room', '24'],
    ["Unknown option '--nope'", '--nope'],
    ["Unexpected argument 'more'", 'more'],
  ] as const) {
    const result = await run(t, script(FILE, ...args))
    t.match(result, { code: 2, stdout: '' }, args.join(' '))
    const [line = '', usage] = result.stderr.split('\n')
    t.ok(line.startsWith(`bytes.ts: ${reason}`), line)
    t.match(usage, /^Usage: \.\/examples\/bytes\.ts /)
  }
})

t.test(
  'it ends when nobody reads on',
  { skip: missing('sh', 'head') },
  async (t) => {
    const sh = ['sh', '-c', '"$@" | head -1', 'sh']
    const result = await run(t, [...sh, ...script(FILE, '--fds', '200')])
    t.match(result, { code: 0, stderr: '', stdout: /^Structs of .*\n$/ })
  },
)
