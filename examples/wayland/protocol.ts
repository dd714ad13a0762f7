// The part of the Wayland protocol that window.ts speaks, out of wayland.xml
// and xdg-shell.xml. Each line is a message: the interface of the object that
// it goes to, its name, its opcode, which is its place in the XML, and a letter
// for each argument. wire.ts says what the letters mean.

// Opcodes and signatures of the requests that window.ts makes.
export const requests = {
  'wl_display.sync': [0, 'n'],
  'wl_display.get_registry': [1, 'n'],
  'wl_registry.bind': [0, 'usun'],
  'wl_compositor.create_surface': [0, 'n'],
  'wl_shm.create_pool': [0, 'nhi'],
  'wl_shm_pool.create_buffer': [0, 'niiiiu'],
  'wl_shm_pool.destroy': [1, ''],
  'wl_buffer.destroy': [0, ''],
  'wl_surface.attach': [1, 'oii'],
  'wl_surface.damage': [2, 'iiii'],
  'wl_surface.frame': [3, 'n'],
  'wl_surface.commit': [6, ''],
  'wl_seat.get_keyboard': [1, 'n'],
  'xdg_wm_base.get_xdg_surface': [2, 'no'],
  'xdg_wm_base.pong': [3, 'u'],
  'xdg_surface.get_toplevel': [1, 'n'],
  'xdg_surface.ack_configure': [4, 'u'],
  'xdg_toplevel.set_title': [2, 's'],
} as const

// All events of those interfaces in version 1, the one that window.ts binds.
export const events = {
  'wl_display.error': [0, 'ous'],
  'wl_display.delete_id': [1, 'u'],
  'wl_registry.global': [0, 'usu'],
  'wl_registry.global_remove': [1, 'u'],
  'wl_callback.done': [0, 'u'],
  'wl_shm.format': [0, 'u'],
  'wl_buffer.release': [0, ''],
  'wl_surface.enter': [0, 'o'],
  'wl_surface.leave': [1, 'o'],
  'wl_seat.capabilities': [0, 'u'],
  'wl_keyboard.keymap': [0, 'uhu'],
  'wl_keyboard.enter': [1, 'uoa'],
  'wl_keyboard.leave': [2, 'uo'],
  'wl_keyboard.key': [3, 'uuuu'],
  'wl_keyboard.modifiers': [4, 'uuuuu'],
  'xdg_wm_base.ping': [0, 'u'],
  'xdg_surface.configure': [0, 'u'],
  'xdg_toplevel.configure': [0, 'iia'],
  'xdg_toplevel.close': [1, ''],
} as const

export type Requests = typeof requests
export type Events = typeof events
