// `make demo`: the server and one client at once, a few lines through the
// client's standard input, both sides labelled. Not a test, but it exits 1 if
// the lines do not arrive.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

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
    console.log(`${label} | ${line.replace(folder, '…')}`)
    onLine(line)
  })
  return child
}

const arrived: string[] = []
const server = start('server', (line) => {
  if (line.startsWith('Server ready on ')) runClient()
  const [, text] = /^client 1> (.*)/.exec(line) ?? []
  if (text !== undefined) arrived.push(text)
})

function runClient(): void {
  const client = start('client')
  client.stdin.end(`${lines.join('\n')}\n`)
  client.once('exit', (code) => {
    process.exitCode = code ?? 1
    server.kill('SIGINT')
  })
}

server.once('exit', (code) => {
  rmSync(folder, { recursive: true })
  const complete = arrived.join() === lines.join()
  if (code !== 0 || !complete) process.exitCode = 1
  console.log(complete ? 'All lines arrived.' : 'Lines are missing.')
})
