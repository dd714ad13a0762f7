// What is typed, by the keymap that the compositor passes as a descriptor.
// Used by window.ts.
// Simplification: no groups, no levels but Shift, no composing. A real program
// hands the text of the keymap to libxkbcommon.

import { closeSync, fstatSync, readSync } from 'node:fs'
import { printable } from '../../lib/script/printable.ts'

// As in `<AC01> = 38;` and in `key <AC01> { [ a, A ] };`.
const CODE = /<(\S+)>\s*=\s*(\d+);/g
const KEY = /key\s*<(\S+)>\s*\{[^}]*?\[([^[\]]*)\]\s*[,}]/g

// The names of the characters of ASCII that have one, in order.
const SIGNS = ' !"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~'
const NAMES = `space exclam quotedbl numbersign dollar percent ampersand
apostrophe parenleft parenright asterisk plus comma minus period slash colon
semicolon less equal greater question at bracketleft backslash bracketright
asciicircum underscore grave braceleft bar braceright asciitilde`.split(/\s/)

export class Keys {
  typed = ''
  #level = 0
  /** The names of each key, as it is and with Shift. */
  readonly #names = new Map<number, string[]>()

  /** Reads a keymap, closes its `fd` and returns its first line. */
  load(fd: number, bytes: number): string {
    const text = readKeymap(fd, bytes)
    // In key events the codes are the kernel's, which are lower by 8.
    const codes = new Map<string, number>()
    for (const [, key = '', code] of text.matchAll(CODE)) {
      codes.set(key, Number(code) - 8)
    }
    this.#names.clear()
    for (const [, key = '', names = ''] of text.matchAll(KEY)) {
      this.#names.set(codes.get(key) ?? -1, names.trim().split(/[,\s]+/))
    }
    return printable(text.split('\n', 1)[0] ?? '')
  }

  shift(modifiers: number): void {
    this.#level = modifiers & 1
  }

  /** All that is typed, with this key. */
  press(key: number): string {
    const names = this.#names.get(key) ?? []
    const name = names[this.#level] ?? names[0] ?? ''
    const sign = SIGNS[NAMES.indexOf(name)] ?? name
    if (name === 'BackSpace') this.typed = this.typed.slice(0, -1)
    if (/^[ -~]$/.test(sign)) this.typed += sign
    return this.typed
  }
}

function readKeymap(fd: number, bytes: number): string {
  try {
    const keymap = Buffer.alloc(Math.min(bytes, fstatSync(fd).size))
    // By position: the offset is one for all that share the description.
    readSync(fd, keymap, 0, keymap.length, 0)
    return keymap.toString('utf8')
  } finally {
    closeSync(fd)
  }
}
