// printable() against every kind of control character, and text in UTF-8.

import { t } from 'tap'

import { printable } from '../../../lib/script/printable.ts'

const hex = (code: number): string => `\\u${code.toString(16).padStart(4, '0')}`

t.test(
  'printable() shows every control character, but for the tab',
  async (t) => {
    for (let code = 0; code < 0xa0; code++) {
      const character = String.fromCharCode(code)
      const isControl = code < 0x20 || code >= 0x7f
      const expected =
        character === '\n' ? '\\n' : character === '\r' ? '\\r' : hex(code)
      const shown = isControl && character !== '\t' ? expected : character
      t.equal(printable(`<${character}>`), `<${shown}>`)
      t.equal(printable(Buffer.from(`<${character}>`)), `<${shown}>`)
    }
  },
)

t.test('printable() shows bidirectional controls and separators', async (t) => {
  const codes = [0x61c, 0x200e, 0x200f, 0x2028, 0x2029]
  for (let code = 0x202a; code <= 0x202e; code++) codes.push(code)
  for (let code = 0x2066; code <= 0x2069; code++) codes.push(code)
  for (const code of codes)
    t.equal(printable(`a${String.fromCharCode(code)}b`), `a${hex(code)}b`)
})

t.test('printable() leaves text in UTF-8 alone', async (t) => {
  for (const text of [
    '',
    'tab\tand \\backslash "quotes"',
    'zwölf €, Ελληνικά, עברית, العربية, 日本語',
    'e\u0301 family \u{1f468}\u200d\u{1f469}\u200d\u{1f467} \u{1f3f3}\ufe0f',
    '\u00a0',
  ]) {
    t.equal(printable(text), text)
    t.equal(printable(Buffer.from(text)), text)
  }
})

t.test('printable() takes bytes that are not UTF-8', async (t) => {
  const bytes = new Uint8Array([0x61, 0x9b, 0x62, 0xff, 0x1b, 0x5b])
  t.equal(printable(bytes), 'a\ufffdb\ufffd\\u001b[')
  t.equal(printable(bytes.subarray(4)), '\\u001b[', 'a view of its own part')
})
