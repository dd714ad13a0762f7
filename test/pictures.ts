// `make pictures`: renews every picture that is made and not drawn by hand.
// examples/pictures/terminals.svg shows server.ts and client.ts as they run in
// two panes of tmux, the plot and the figures of the pages come from
// bench/results.json, and weston shows the window of examples/wayland. What
// needs a program that is missing here is left as it is, with a line that says
// so. Partner: pictures.test.ts.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'

import { fail } from '../lib/script/cli.ts'

/** A pane: the command that was typed, and the lines below it. */
export type Pane = {
  readonly title: string
  readonly command: string
  readonly lines: readonly string[]
}

const TYPED = 'hello wörld'
const COLUMNS = 60
const ROWS = 8

type Tmux = (...args: string[]) => string

const [SERVER, CLIENT] = ['s:0.0', 's:0.1'] as const

/** Runs server and client in two panes, types a line and Ctrl-D, and looks. */
export async function capture(
  inherited: NodeJS.ProcessEnv = process.env,
): Promise<Pane[]> {
  const folder = mkdtempSync(join(tmpdir(), 'fdpass-'))
  const socket = ['-S', join(folder, 'tmux')]
  // node:ffi prints a warning, which is no part of the picture.
  const env = { ...inherited, FDPASS_FFI: undefined }
  const tmux: Tmux = (...args) =>
    execFileSync('tmux', [...socket, ...args], { encoding: 'utf8', env })
  try {
    startPanes(tmux, folder)
    await talk(tmux)
    const panes = [
      paneOf(tmux, 'Terminal 1: the server', SERVER, './server.ts'),
      paneOf(tmux, 'Terminal 2: the client', CLIENT, './client.ts'),
    ]
    const asShown = (line: string): string => line.replaceAll(folder, '/tmp')
    return panes.map((pane) => ({ ...pane, lines: pane.lines.map(asShown) }))
  } finally {
    try {
      tmux('kill-server')
    } catch {} // It has not started.
    rmSync(folder, { recursive: true, force: true })
  }
}

// Two shells. The socket is in a folder of this run's own, which the picture
// shows as /tmp.
function startPanes(tmux: Tmux, folder: string): void {
  const size = ['-x', `${COLUMNS}`, '-y', `${2 * ROWS + 1}`]
  const shell = ['env', '-u', 'XDG_RUNTIME_DIR', 'PS1=$ ', `TMPDIR=${folder}`]
  const command = [...shell, 'sh']
  tmux('-f', '/dev/null', 'new-session', '-d', '-s', 's', ...size, ...command)
  tmux('split-window', '-v', '-t', 's', ...command)
}

async function talk(tmux: Tmux): Promise<void> {
  const type = (pane: string, ...keys: string[]): string =>
    tmux('send-keys', '-t', pane, ...keys)
  const shows = async (pane: string, text: string): Promise<void> => {
    const look = (): string => tmux('capture-pane', '-p', '-t', pane)
    for (let tries = 0; !look().includes(text); tries++) {
      if (tries === 2000) throw new Error(`Expected ${text}, got ${look()}`)
      await sleep(50)
    }
  }
  // What is typed before the prompt would appear twice.
  await shows(SERVER, '$')
  await shows(CLIENT, '$')
  type(SERVER, './server.ts', 'Enter')
  await shows(SERVER, 'Server ready')
  type(CLIENT, './client.ts', 'Enter')
  await shows(CLIENT, 'Sent fd 0')
  type(CLIENT, TYPED, 'Enter')
  await shows(SERVER, `> ${TYPED}`)
  type(CLIENT, 'C-d')
  await shows(CLIENT, 'Server: End of input')
  await shows(SERVER, 'End of input')
}

// Without the prompt that waits for the next command.
function paneOf(
  tmux: Tmux,
  title: string,
  pane: string,
  command: string,
): Pane {
  const capture = ['capture-pane', '-p', '-J', '-S', '-', '-t', pane]
  const screen = tmux(...capture).split('\n')
  const all = screen.map((line) => line.trimEnd())
  const below = all.slice(all.indexOf(`$ ${command}`) + 1)
  const lines = below.filter((line) => line !== '' && line !== '$')
  return { title, command, lines }
}

const STYLE = `
  .page { fill: #ffffff; stroke: #d0d7de }
  .bar { fill: #f6f8fa; stroke: #d0d7de }
  text { font: 13px ui-monospace, monospace; fill: #1f2328; white-space: pre }
  .h { font: 600 13px ui-sans-serif, system-ui, sans-serif; fill: #57606a }
  .p { fill: #57606a } .c { font-weight: 600 }
  .t { fill: #bc4c00; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d }
    .bar { fill: #161b22; stroke: #30363d }
    text { fill: #e6edf3 } .h, .p { fill: #9da7b1 } .t { fill: #f0883e }
  }`

/** Both panes side by side, what was typed at the client marked in both. */
export function draw(panes: readonly Pane[]): string {
  const most = Math.max(...panes.map(({ lines }) => lines.length))
  const [width, lineHeight, top] = [480, 21, 62]
  const height = top + most * lineHeight + 8
  const parts = panes.map(({ title, command, lines }, index) => {
    const x = 10 + index * (width + 10)
    const rows = lines.map((line, row) => {
      const y = top + (row + 1) * lineHeight
      const at = line.indexOf(TYPED)
      const rest = at < 0 ? '' : line.slice(at)
      const before = escaped(at < 0 ? line : line.slice(0, at))
      const typed = rest ? `<tspan class="t">${escaped(rest)}</tspan>` : ''
      return `<text x="${x + 14}" y="${y}" xml:space="preserve">${before}${typed}</text>`
    })
    return `
<rect class="page" x="${x}.5" y="10.5" width="${width}" height="${height}" rx="8"/>
<path class="bar" d="M${x}.5 36.5v-18a8 8 0 0 1 8-8h${width - 16}a8 8 0 0 1 8 8v18z"/>
<text class="h" x="${x + 14}" y="28">${title}</text>
<text x="${x + 14}" y="${top}" xml:space="preserve"><tspan class="p">$ </tspan><tspan class="c">${command}</tspan></text>
${rows.join('\n')}`
  })
  const size = `viewBox="0 0 ${2 * width + 30} ${height + 22}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} width="${2 * width + 30}" role="img" aria-labelledby="t d">
<title id="t">The server and the client in two terminals</title>
<desc id="d">${escaped(panes.map(({ title, lines }) => `${title}: ${lines.join('; ')}`).join('. '))}</desc>
<style>${STYLE}
</style>${parts.join('\n')}
</svg>
`
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
}

function has(tool: string, picture: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${tool}`], { stdio: 'ignore' })
    return true
  } catch {
    console.log(`${picture}: left as it is, ${tool} is not installed`)
    return false
  }
}

function renew(picture: string, ...command: [string, ...string[]]): void {
  const [file, ...args] = command
  execFileSync(file, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  console.log(picture)
}

async function main(): Promise<void> {
  const terminals = 'examples/pictures/terminals.svg'
  if (has('tmux', terminals)) {
    writeFileSync(terminals, draw(await capture()))
    console.log(terminals)
  }
  const tsx = [process.execPath, '--import', 'tsx'] as const
  renew('bench/results.svg', ...tsx, 'bench/plot.ts')
  renew('the figures of the pages', ...tsx, 'test/readme.ts', '--write')
  const window = 'examples/wayland/window.png'
  if (has('weston', window)) renew(window, 'test/peers/window-shot.sh', window)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await main().catch(fail)
}
