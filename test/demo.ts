// `make demo`: the server and one client at once, a few lines through the
// client's standard input, both sides labelled. Not a test, but it exits 1 if
// the lines do not arrive. Stopped before (Ctrl-C, or `make demo | head -1`), it
// stops both sides.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { onStop, print } from '../lib/script/cli.ts'

const folder = mkdtempSync(join(tmpdir(), 'fdpass-'))
const path = join(folder, 'demo.sock')
const lines = [
  'These lines go into the client',
  'and come out at the server,',
  'which read them itself.',
]

/** Starts a script; prints its lines with a label; `onLine` sees each. */
function start(label: string, onLine: (line: string) => void = () => {}) {
  const file = `${label}.ts`
  const args = ['--import', 'tsx', file, path]
  const child = spawn(process.execPath, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  createInterface({ input: child.stdout }).on('line', (line) => {
    print(`${label} | ${line.replace(folder, '…')}`)
    onLine(line)
  })
  return child
}

const arrived: string[] = []
let isStopped = false
const server = start('server', (line) => {
  if (line.startsWith('Server ready on ') && !isStopped) runClient()
  const [, text] = /^client 1> (.*)/.exec(line) ?? []
  if (text !== undefined) arrived.push(text)
})

let client: ReturnType<typeof start> | undefined

function runClient(): void {
  client = start('client')
  client.stdin.on('error', () => {}) // It may have ended before it read all.
  client.stdin.end(`${lines.join('\n')}\n`)
  client.once('close', (code) => {
    process.exitCode = isStopped ? 0 : (code ?? 1)
    server.kill('SIGINT')
  })
}

onStop(() => {
  isStopped = true
  client?.kill()
  server.kill('SIGINT')
})

// Not 'exit': its last lines may come here after its end.
server.once('close', (code) => {
  rmSync(folder, { recursive: true })
  if (isStopped) return
  const complete = arrived.join() === lines.join()
  if (code !== 0 || !complete) process.exitCode = 1
  print(complete ? 'All lines arrived.' : 'Lines are missing.')
})
