#!/bin/sh
true //; exec "$(dirname "$(realpath "$0")")/../../lib/script/run" "$0" "$@"

// A window on the screen, with nothing between this program and the compositor
// but lib/: its picture is a file in memory, for which the compositor is sent a
// descriptor. The picture shows just that, and what is typed while the window
// has the keyboard.
//
// Partner: any Wayland compositor: the one of your desktop, or one without a
// screen, `weston --backend=headless-backend.so --use-pixman`. wire.ts has the
// messages, picture.ts the pixels. Open unix(7), memfd_create(2), wayland.xml,
// xdg-shell.xml.
//
// New here: a descriptor as shared memory. The compositor maps the file; what
// this program writes into it with plain writes is what the compositor shows.

import { closeSync, writeSync } from 'node:fs'
import { isAbsolute, resolve } from 'node:path'

import { connect, memfd, UnixConn } from '../../lib/index.ts'
import {
  commandLine,
  fail,
  help,
  messageOf,
  onStop,
} from '../../lib/script/cli.ts'
import { Keys } from './keys.ts'
import { Picture } from './picture.ts'
import { DISPLAY, Wire } from './wire.ts'

const USAGE = `Usage: ./examples/wayland/window.ts
Opens a window on $WAYLAND_DISPLAY, or over $WAYLAND_SOCKET. Ctrl-C closes it.`

commandLine(USAGE, { options: help }, [0, 0])

const XRGB8888 = 1
const KEYBOARD = 2 // in the capabilities of a wl_seat

type Pool = {
  readonly fd: number
  readonly picture: Picture
  readonly buffers: Map<number, { readonly offset: number; busy: boolean }>
}

let [width, height] = [640, 440] // where the compositor does not choose
let pool: Pool | undefined
let isLate = false // a frame is to be drawn, and both buffers are busy
let callback = 0 // for the next frame
let time = 0 // milliseconds
let hasKeyboard = false
const keys = new Keys()

const conn = await reach()
const { pid } = conn.peerCredentials()
console.log(`Connected to the compositor, pid ${pid}`)
const wire = new Wire(conn)
onStop(() => wire.close())

// The compositor works in order: once the second is done, it has told of all
// its globals.
const globals = new Map<string, number>()
const registry = wire.create('wl_registry')
wire.send(DISPLAY, 'wl_display.get_registry', registry)
wire.send(DISPLAY, 'wl_display.sync', wire.create('wl_callback'))

// The numbers of objects are the client's to choose: these have theirs before
// they are made, in this order, by openWindow().
const compositor = wire.create('wl_compositor')
const shm = wire.create('wl_shm')
const base = wire.create('xdg_wm_base')
const surface = wire.create('wl_surface')
const xdgSurface = wire.create('xdg_surface')
const toplevel = wire.create('xdg_toplevel')

const running = wire.run({
  'wl_registry.global': (_, name, type) => globals.set(type, name),
  'wl_callback.done': (object, now) => {
    if (object !== callback) return openWindow()
    callback = 0
    time = now
    draw()
  },
  'xdg_wm_base.ping': (_, n) => wire.send(base, 'xdg_wm_base.pong', n),
  'xdg_toplevel.configure': (_, wantedWidth, wantedHeight) => {
    width = wantedWidth || width
    height = wantedHeight || height
  },
  'xdg_surface.configure': (_, serial) => {
    wire.send(xdgSurface, 'xdg_surface.ack_configure', serial)
    if (!pool?.picture.fits(width, height)) pool = replace(pool)
    draw()
  },
  'xdg_toplevel.close': () => wire.close(),
  'wl_buffer.release': (object) => {
    const buffer = pool?.buffers.get(object)
    if (!buffer) return wire.send(object, 'wl_buffer.destroy')
    buffer.busy = false
    if (isLate) draw()
  },
  'wl_seat.capabilities': (seat, capabilities) => {
    const before = hasKeyboard
    hasKeyboard = (capabilities & KEYBOARD) !== 0
    if (before || !hasKeyboard) return
    wire.send(seat, 'wl_seat.get_keyboard', wire.create('wl_keyboard'))
  },
  'wl_keyboard.keymap': (_, format, fd, bytes) => {
    const what = `keymap, format ${format}, ${bytes} bytes`
    console.log(`Received fd ${fd}: ${what}: ${keys.load(fd, bytes)}`)
  },
  'wl_keyboard.modifiers': (_, _serial, depressed) => keys.shift(depressed),
  'wl_keyboard.key': (_, _serial, _time, key, isPressed) => {
    if (isPressed) console.log(`Typed: ${keys.press(key)}`)
  },
})
await running.catch(fail)
if (pool) closeSync(pool.fd)
console.log('Window closed')

async function reach(): Promise<UnixConn> {
  const { WAYLAND_SOCKET: fd, WAYLAND_DISPLAY: display } = process.env
  const folder = process.env.XDG_RUNTIME_DIR ?? ''
  try {
    // Whoever started this program has connected it already.
    if (fd) return UnixConn.fromFd(Number(fd))
    const path = resolve(folder, display || 'wayland-0')
    if (folder || isAbsolute(display ?? '')) return await connect(path)
    throw new Error('XDG_RUNTIME_DIR is not set')
  } catch (error) {
    const shown = `WAYLAND_DISPLAY is ${display || 'not set'}`
    const tried = fd ? `WAYLAND_SOCKET is ${fd}` : shown
    return fail(`No compositor: ${tried}: ${messageOf(error)}`)
  }
}

function openWindow(): void {
  bind(compositor, 'wl_compositor')
  bind(shm, 'wl_shm')
  bind(base, 'xdg_wm_base')
  wire.send(compositor, 'wl_compositor.create_surface', surface)
  wire.send(base, 'xdg_wm_base.get_xdg_surface', xdgSurface, surface)
  wire.send(xdgSurface, 'xdg_surface.get_toplevel', toplevel)
  wire.send(toplevel, 'xdg_toplevel.set_title', 'File descriptors')
  // Without a buffer, which asks for a configure.
  wire.send(surface, 'wl_surface.commit')
  if (globals.has('wl_seat')) bind(wire.create('wl_seat'), 'wl_seat')
}

function bind(object: number, type: string): void {
  const name = globals.get(type) ?? fail(`This compositor has no ${type}`)
  wire.send(registry, 'wl_registry.bind', name, type, 1, object)
}

// A file for two buffers of the window's size: one is shown, one drawn.
function replace(old: Pool | undefined): Pool {
  for (const [object, { busy }] of old?.buffers ?? []) {
    if (!busy) wire.send(object, 'wl_buffer.destroy')
  }
  if (old) closeSync(old.fd)

  const bytes = width * height * 4
  // The compositor maps it, and would get SIGBUS if it read behind the end: so
  // it is told that nobody can make the file shorter.
  const fd = memfd('window', { size: 2 * bytes, seal: ['shrink'] })
  console.log(`Sending fd ${fd}: two buffers of ${width}x${height} pixels`)
  const id = wire.create('wl_shm_pool')
  wire.send(shm, 'wl_shm.create_pool', id, fd, 2 * bytes)
  const format = [width, height, 4 * width, XRGB8888] as const
  const buffers = [0, bytes].map((offset) => {
    const buffer = wire.create('wl_buffer')
    wire.send(id, 'wl_shm_pool.create_buffer', buffer, offset, ...format)
    return [buffer, { offset, busy: false }] as const
  })
  wire.send(id, 'wl_shm_pool.destroy') // the buffers keep it
  const picture = new Picture(width, height, fd, conn.fd, pid)
  return { fd, picture, buffers: new Map(buffers) }
}

function draw(): void {
  const free = [...(pool?.buffers ?? [])].find(([, { busy }]) => !busy)
  isLate = !free
  if (!pool || !free) return
  const [object, buffer] = free
  const pixels = pool.picture.at(time, keys.typed)
  writeSync(pool.fd, pixels, 0, pixels.byteLength, buffer.offset)
  buffer.busy = true
  wire.send(surface, 'wl_surface.attach', object, 0, 0)
  wire.send(surface, 'wl_surface.damage', 0, 0, width, height)
  if (callback === 0) {
    callback = wire.create('wl_callback')
    wire.send(surface, 'wl_surface.frame', callback)
  }
  wire.send(surface, 'wl_surface.commit')
}
