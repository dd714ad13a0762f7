// examples/wayland, as a user runs it: on weston and sway without a screen, and
// on a compositor in Python that does what those do only when somebody drags
// the window, or when something breaks.

import { chmodSync, chownSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Test, t } from 'tap'

import { connect, type UnixConn } from '../../lib/index.ts'
import { type Image, readPng } from '../png.ts'
import { openFds, settledFds } from '../support/descriptors.ts'
import { temporaryFolder } from '../support/folder.ts'
import { missing } from '../support/missing.ts'
import { plainEnv, Running, run, script } from '../support/processes.ts'
import { until } from '../support/waiting.ts'
import { noMoreFds } from './support.ts'

const WINDOW = 'examples/wayland/window.ts'
const NOBODY = 65534

/** Of the window, all in its picture.ts. */
const BACKGROUND = 0x10151f
const OURS = 0xffb454
const THEIRS = 0x5ad1c2

/** An environment in which no compositor is reached but the one given. */
function reaching(extra: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const none = { WAYLAND_SOCKET: undefined, WAYLAND_DISPLAY: undefined }
  return plainEnv({ ...none, XDG_RUNTIME_DIR: undefined, ...extra })
}

function windowOn(t: Test, extra: NodeJS.ProcessEnv): Running {
  return new Running(t, script(WINDOW), { env: reaching(extra) })
}

/** A compositor, ended before its folder is removed. */
async function start(t: Test, command: string[], env: NodeJS.ProcessEnv) {
  const compositor = new Running(t, command, { env: reaching(env) })
  t.teardown(() => {
    compositor.child.kill('SIGTERM')
    return compositor.exit
  })
  const folder = env.XDG_RUNTIME_DIR ?? ''
  const alive = () => {
    if (compositor.child.exitCode !== null) throw new Error(compositor.stderr)
  }
  let display = ''
  await until(`${command[0]} has a socket`, () => {
    alive()
    const names = readdirSync(folder)
    display = names.find((name) => /^wayland-\d+$/.test(name)) ?? ''
    return display !== ''
  })
  // Between bind(2) and listen(2) the file is there, and refuses.
  let conn: UnixConn | undefined
  while (conn === undefined) {
    alive()
    conn = await connect(join(folder, display)).catch(() => undefined)
  }
  conn.close()
  return { compositor, display, folder }
}

function startWeston(t: Test) {
  const folder = temporaryFolder(t)
  const options = ['--backend=headless-backend.so', '--use-pixman', '--debug']
  const size = ['--width=800', '--height=560', '--socket=wayland-7']
  const command = ['weston', ...options, '--no-config', ...size]
  return start(t, command, { XDG_RUNTIME_DIR: folder })
}

/** The screen, as soon as `isRight` says so of a picture of it. */
async function screenshot(
  t: Test,
  env: NodeJS.ProcessEnv,
  isRight: (image: Image) => boolean,
): Promise<Image> {
  for (let tries = 0; tries < 100; tries++) {
    const cwd = temporaryFolder(t)
    const options = { env: reaching(env), cwd }
    const { code } = await run(t, ['weston-screenshooter'], options)
    t.equal(code, 0, 'weston-screenshooter')
    const image = readPng(join(cwd, readdirSync(cwd)[0] ?? ''))
    if (isRight(image)) return image
  }
  throw new Error('Expected another picture of the screen in 100 tries')
}

/** The points of one colour. */
function pointsOf(image: Image, colour: number): [x: number, y: number][] {
  const points: [number, number][] = []
  for (let y = 0; y < image.height; y++) {
    for (let x = 0; x < image.width; x++) {
      if (image.at(x, y) === colour) points.push([x, y])
    }
  }
  return points
}

t.test(
  'a real compositor shows the window, and it moves',
  { skip: missing('weston', 'weston-screenshooter') },
  async (t) => {
    const { compositor, display, folder } = await startWeston(t)
    const env = { XDG_RUNTIME_DIR: folder, WAYLAND_DISPLAY: display }
    const sizeOfIt = (image: Image) => pointsOf(image, BACKGROUND).length
    await screenshot(t, env, (image) => sizeOfIt(image) === 0)

    const window = windowOn(t, env)
    await window.printed(
      new RegExp(`^Connected to the compositor, pid ${compositor.pid}$`, 'm'),
    )
    await window.printed(/^Sending fd \d+: two buffers of 640x440 pixels$/m)
    // Bright colours are exact only after weston has faded in.
    const isThere = (image: Image) => {
      const [ours, theirs] = [pointsOf(image, OURS), pointsOf(image, THEIRS)]
      const hasBoth = ours.length > 100 && theirs.length > 100
      return hasBoth && sizeOfIt(image) > 100_000
    }
    const image = await screenshot(t, env, isThere)
    const points = pointsOf(image, BACKGROUND)
    const columns = points.map(([x]) => x)
    const rows = points.map(([, y]) => y)
    const [left, top] = [Math.min(...columns.slice(0, 9)), rows[0] ?? 0]
    t.equal(points.at(-1)?.[0], left + 639, 'as wide as it says')
    t.equal(points.at(-1)?.[1], top + 439, 'and as high')
    const ours = pointsOf(image, OURS)
    const theirs = pointsOf(image, THEIRS)
    t.ok(ours.length > 100 && theirs.length > 100, 'with both colours')
    t.ok(
      ours.every(([x]) => x < left + 320),
      'ours on the left',
    )
    t.ok(
      theirs.every(([x]) => x > left + 320),
      'theirs on the right',
    )

    const moved = new Map<number, [x: number, y: number]>()
    await screenshot(t, env, (next) => {
      for (let y = 0; y < 440; y++) {
        for (let x = 0; x < 640; x++) {
          const [atX, atY] = [left + x, top + y]
          if (next.at(atX, atY) === image.at(atX, atY)) continue
          moved.set(y * 640 + x, [x, y])
        }
      }
      return moved.size > 0
    })
    const places = [...moved.values()]
    const isOnTheWay = ([x, y]: [number, number]) => {
      return x >= 230 && x <= 410 && y >= 230 && y <= 345
    }
    t.ok(places.every(isOnTheWay), 'nothing moves but the dots')

    window.child.kill('SIGINT')
    t.match(await window.exit, { code: 0 })
    t.match(window.stdout, /\nWindow closed\n$/)
    t.equal(window.stderr, '')
  },
)

t.test(
  '$WAYLAND_SOCKET is an inherited connection, and goes first',
  { skip: missing('weston') },
  async (t) => {
    const { display, folder } = await startWeston(t)
    const conn = await connect(join(folder, display))
    t.teardown(() => conn.close())
    const window = new Running(t, script(WINDOW), {
      env: reaching({ WAYLAND_SOCKET: '3', WAYLAND_DISPLAY: 'not-there' }),
      stdio: ['ignore', 'pipe', 'pipe', conn.fd],
    })
    await window.printed(/^Sending fd \d+: two buffers of 640x440 pixels$/m)
    t.match(
      openFds(window.pid).filter((fd) => /^3 /.test(fd)),
      [/socket/],
    )
    window.child.kill('SIGTERM')
    t.match(await window.exit, { code: 0 })
    t.equal(window.stderr, '')
  },
)

t.test(
  'the words of a real compositor’s wl_display.error become the error',
  { skip: missing('weston') },
  async (t) => {
    const { display, folder } = await startWeston(t)
    const conn = await connect(join(folder, display))
    t.teardown(() => conn.close())
    // A request to an object that is not there, before the window's own.
    await conn.sendmsg(Buffer.from('6300000000000800', 'hex'))
    const window = new Running(t, script(WINDOW), {
      env: reaching({ WAYLAND_SOCKET: '3' }),
      stdio: ['ignore', 'pipe', 'pipe', conn.fd],
    })
    t.match(await window.exit, { code: 1 })
    t.equal(
      window.stderr,
      'window.ts: The compositor: wl_display@1: invalid object 99 (0)\n',
    )
  },
)

t.test(
  'the keymap is received and used',
  { skip: missing('sway', 'wtype', 'setpriv') },
  async (t) => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'config'), '')
    // sway refuses to run as root.
    const isRoot = process.getuid?.() === 0
    if (isRoot) chownSync(folder, NOBODY, NOBODY)
    chmodSync(folder, 0o700)
    const ids = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups']
    const other = isRoot ? ['setpriv', ...ids] : []
    const { display } = await start(
      t,
      [...other, 'sway', '-c', join(folder, 'config')],
      {
        XDG_RUNTIME_DIR: folder,
        WLR_BACKENDS: 'headless',
        WLR_RENDERER: 'pixman',
        WLR_LIBINPUT_NO_DEVICES: '1',
      },
    )
    const env = { XDG_RUNTIME_DIR: folder, WAYLAND_DISPLAY: display }
    const window = windowOn(t, env)
    // A tiling compositor chooses the size: the window is resized.
    await window.printed(/^Sending fd \d+: two buffers of 1276x693 pixels$/m)
    const before = await settledFds(window.pid)

    // There is a keyboard as long as a wtype runs: this one is never done.
    const keyboard = [...other, 'wtype', '-s', '1000000']
    new Running(t, keyboard, { env: reaching(env) })
    await window.printed(
      /^Received fd \d+: keymap, format 1, \d+ bytes: xkb_keymap \{$/m,
    )
    const typing = [...other, 'wtype', 'Hello, world']
    t.match(await run(t, typing, { env: reaching(env) }), { code: 0 })
    await window.printed(/^Typed: Hello, world$/m)
    const erasing = [...other, 'wtype', '-k', 'BackSpace', '-M', 'shift', 'x']
    t.match(await run(t, erasing, { env: reaching(env) }), { code: 0 })
    await window.printed(/^Typed: Hello, worl[xX]$/m)
    await noMoreFds(t, window, before) // all keymaps closed
    window.child.kill('SIGINT')
    t.match(await window.exit, { code: 0 })
    t.equal(window.stderr, '')
  },
)

/** The window on the compositor in Python, with only some of the globals. */
async function fake(t: Test, ...globals: string[]) {
  const folder = temporaryFolder(t)
  const socket = join(folder, 'socket')
  const peer = ['python3', 'test/peers/compositor.py', socket, ...globals]
  const compositor = new Running(t, peer)
  await compositor.printed(/^ready$/m)
  const window = windowOn(t, {
    XDG_RUNTIME_DIR: folder,
    WAYLAND_DISPLAY: socket,
  })
  const command = (line: string) => compositor.child.stdin?.write(`${line}\n`)
  /** Everything that the window sent before has been printed then. */
  let pings = 0
  const settled = async () => {
    command(`ping ${++pings}`)
    await compositor.printed(new RegExp(`^xdg_wm_base.pong ${pings}$`, 'm'))
  }
  const count = (pattern: RegExp) => {
    return compositor.stdout.match(new RegExp(pattern, 'gm'))?.length ?? 0
  }
  return { folder, compositor, window, command, settled, count }
}

const python = { skip: missing('python3') }

t.test('the window does what xdg-shell asks of it', python, async (t) => {
  const { compositor, window, command, settled, count } = await fake(t)
  const [, first = '', colours] = await compositor.printed(
    /^shown (\d+) 640x440 colours (\d+)$/m,
  )
  t.ok(Number(colours) > 50, 'a picture, by plain writes')
  t.match(compositor.stdout, /^pool 2252800 file 2252800 links 0$/m)
  t.match(compositor.stdout, /ack_configure 1\n(.*\n)*wl_surface\.attach/)
  t.match(compositor.stdout, /^xdg_toplevel.set_title File descriptors$/m)
  await settled()

  command('frame 16')
  await compositor.printed(/(^shown \d+ 640x440 (.*\n)*){2}/m)
  const [second = ''] = [...compositor.stdout.matchAll(/^shown (\d+)/gm)]
    .map((match) => match[1])
    .slice(1)
  t.not(first, second, 'the other buffer, while the first is in use')
  command('frame 32')
  await settled()
  t.equal(count(/^shown /), 2, 'and neither while both are')
  command(`release ${first}`)
  await compositor.printed(new RegExp(`(^shown ${first} (.*\\n)*){2}`, 'm'))

  command('configure 300 200')
  await compositor.printed(/^shown \d+ 300x200 colours/m)
  t.match(compositor.stdout, /^xdg_surface.ack_configure 2$/m)
  t.match(compositor.stdout, /^pool 480000 file 480000 links 0$/m)
  t.equal(count(/^wl_buffer.destroy/), 0, 'both old buffers are in use')
  command(`release ${first}`)
  command(`release ${second}`)
  await settled()
  t.equal(count(/^wl_buffer.destroy/), 2, 'and destroyed when they are not')
  command('configure 300 200')
  await settled()
  t.match(compositor.stdout, /^xdg_surface.ack_configure 3$/m)
  t.equal(count(/^pool /), 2, 'nothing new for the same size')

  command('close')
  t.match(await window.exit, { code: 0 })
  t.match(window.stdout, /\nWindow closed\n$/)
  t.equal(window.stderr, '')
  await compositor.printed(/^client left$/m)
})

t.test(
  'descriptors are matched with their events, and closed',
  python,
  async (t) => {
    const { folder, compositor, window, command, settled } = await fake(t)
    await compositor.printed(/^shown \d+ 640x440/m)
    command('capabilities 2')
    await compositor.printed(/^wl_seat.get_keyboard \d+$/m)
    const before = await settledFds(window.pid)

    command('keymaps alpha beta gamma')
    for (const name of ['alpha', 'beta', 'gamma']) {
      await window.printed(new RegExp(`^Received fd .* bytes: ${name}$`, 'm'))
    }
    await window.printed(/^Typed: abg$/m)
    for (let times = 1; times <= 20; times++) {
      command('keymaps delta epsilon zeta')
      command(`configure ${100 + times} ${200 + times}`)
      await compositor.printed(
        new RegExp(`^shown \\d+ ${100 + times}x${200 + times} `, 'm'),
      )
    }
    await settled()
    await window.printed(/^Typed: abg(dez){20}$/m)
    // As many, and not the same: the window has a file for each size.
    await until('no descriptor more', () => {
      return openFds(window.pid).length === before.length
    })
    t.same(readdirSync(folder), ['socket'], 'and no file in the folder')
    const pools = compositor.stdout.match(/^wl_shm.create_pool \d+/gm) ?? []
    t.equal(pools.length, 21)
    t.ok(new Set(pools).size < 21, 'deleted numbers are used again')
  },
)

t.test('a capability that comes and goes', python, async (t) => {
  const { compositor, command, settled, count } = await fake(t)
  await compositor.printed(/^shown /m)
  for (const capabilities of [1, 3, 2, 0, 2]) {
    command(`capabilities ${capabilities}`)
  }
  await settled()
  t.equal(count(/^wl_seat.get_keyboard /), 2, 'a keyboard for each time')
})

t.test('without a seat', python, async (t) => {
  const globals = ['wl_compositor', 'wl_shm', 'xdg_wm_base']
  const { compositor, count } = await fake(t, ...globals)
  await compositor.printed(/^shown /m)
  t.equal(count(/^wl_registry.bind/), 3)
})

t.test('what ends the window with one line', python, async (t) => {
  const ends = [
    {
      command: 'error bad buffer \u001b[2J',
      line: /^window.ts: The compositor: wl_surface@\d+: bad buffer \\u001b\[2J \(3\)\n$/,
    },
    { command: 'stray', line: /^window.ts: .*got wl_surface.9\n$/ },
    { command: 'nofd', line: /^window.ts: Expected a descriptor, got none\n$/ },
    { command: 'hangup', line: /^window.ts: The compositor hung up\n$/ },
  ]
  const each = ends.map(async ({ command, line }) => {
    const { compositor, window, ...peer } = await fake(t)
    await compositor.printed(/^shown /m)
    peer.command('capabilities 2')
    await compositor.printed(/^wl_seat.get_keyboard/m)
    peer.command(command)
    t.match(await window.exit, { code: 1 }, command)
    t.match(window.stderr, line)
  })
  await Promise.all(each)
  const bare = await fake(t, 'wl_compositor', 'wl_shm')
  t.match(await bare.window.exit, { code: 1 })
  t.equal(bare.window.stderr, 'window.ts: This compositor has no xdg_wm_base\n')
})

t.test('a wrong command line, no compositor', async (t) => {
  const folder = temporaryFolder(t)
  t.match(await run(t, script(WINDOW, 'x')), { code: 2, stdout: '' })
  t.match(await run(t, script(WINDOW, '--nope')), { code: 2, stdout: '' })

  const nowhere = [
    [
      { XDG_RUNTIME_DIR: folder },
      `not set: connect ENOENT ${folder}/wayland-0`,
    ],
    [{ WAYLAND_DISPLAY: `${folder}/x` }, `${folder}/x: connect ENOENT `],
    [{ WAYLAND_DISPLAY: 'x' }, 'x: XDG_RUNTIME_DIR is not set'],
    [{ WAYLAND_SOCKET: '99' }, '99: '],
    [{ WAYLAND_SOCKET: 'x' }, 'x: '],
  ] as const
  const each = nowhere.map(async ([extra, words]) => {
    const name =
      'WAYLAND_SOCKET' in extra ? 'WAYLAND_SOCKET' : 'WAYLAND_DISPLAY'
    const { code, stdout, stderr } = await run(t, script(WINDOW), {
      env: reaching(extra),
    })
    t.match({ code, stdout }, { code: 1, stdout: '' })
    t.match(stderr, `window.ts: No compositor: ${name} is ${words}`)
    t.equal(stderr.match(/\n/g)?.length, 1, 'one line')
  })
  await Promise.all(each)
  t.same(readdirSync(folder), [])
})
