// The end of a process while a call in libuv's pool does not come back.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { t } from 'tap'

import { temporaryFolder } from '../../support/folder.ts'
import { missing } from '../../support/missing.ts'
import { run, script, strip } from '../../support/processes.ts'

// process.reallyExit() is Node's last step, which _exit(2) of the library leaves
// out. block() has a thread of the pool wait for a writer of the FIFO: at any
// other end of the process C waits for that thread, and so for ever.
const BEGIN = `
import { open, writeSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { beginPoolCall } from './lib/socket/pool-calls.ts'
const say = (text) => writeSync(1, text + '\\n')
const { reallyExit } = process
process.reallyExit = (code) => {
  say('as ever')
  reallyExit.call(process, code)
}
const block = () => open(process.argv[1], 'r', () => {})
process.on('exit', (code) => say('before: ' + code))
`

for (const [name, source, printed, code] of [
  [
    'while a call is under way the process ends at once',
    `block()
    beginPoolCall()
    const count = process.listenerCount('exit')
    beginPoolCall()()
    say('more listeners: ' + (process.listenerCount('exit') - count))
    process.on('exit', (code) => say('behind: ' + code))
    process.exit(3)`,
    'more listeners: 0\nbefore: 3\nbehind: 3\n',
    3,
  ],
  [
    "a later listener to 'exit' may change the exit code",
    `block()
    beginPoolCall()
    process.on('exit', () => { process.exitCode = 4 })
    process.exit(3)`,
    'before: 3\n',
    4,
  ],
  [
    "a later listener to 'exit' may throw",
    `block()
    beginPoolCall()
    process.on('exit', () => { throw new Error('at the end') })
    process.exit(3)`,
    'before: 3\n',
    3,
  ],
  [
    'once all calls are over the process ends as ever',
    `const ends = [beginPoolCall(), beginPoolCall()]
    for (const end of ends) end()
    process.on('exit', (code) => say('behind: ' + code))
    process.exit(3)`,
    'before: 3\nbehind: 3\nas ever\n',
    3,
  ],
  [
    'a worker thread ends alone',
    `const source = "import { beginPoolCall } from './lib/socket/pool-calls.ts'\\n" +
      'beginPoolCall(); process.exit(5)'
    const execArgv = ${JSON.stringify([...strip, '--input-type=module'])}
    const worker = new Worker(source, { eval: true, execArgv })
    worker.once('exit', (code) => {
      say('worker: ' + code)
      process.exit()
    })`,
    'worker: 5\nbefore: 0\nas ever\n',
    0,
  ],
] as const) {
  t.test(name, { skip: missing('mkfifo'), timeout: 60_000 }, async (t) => {
    const fifo = join(temporaryFolder(t), 'fifo')
    execFileSync('mkfifo', [fifo])
    const command = script('--input-type=module', '-e', BEGIN + source, fifo)
    const result = await run(t, command)
    t.equal(result.stdout, printed, result.stderr)
    t.strictSame([result.code, result.signal], [code, null])
  })
}
