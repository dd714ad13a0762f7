// Text that another user wrote, made safe to print on a terminal. ESC starts
// commands to the terminal, U+009B is ESC and `[` in one character, `\r` goes
// back to the start of the line and lets the rest forge another client's line,
// and bidirectional controls change the order in which a line is displayed.
// Read next: lib/script/lines.ts.

/** Control characters but for the tab, line separators, direction controls. */
const UNSAFE = /(?!\t)[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu

/**
 * `text` with each control character replaced by its escape sequence in
 * JavaScript, such as `\r` or `\u001b`. All other text, and the tab, stay as
 * they are. Bytes are taken for UTF-8; those that are not become U+FFFD.
 */
export function printable(text: string | Uint8Array): string {
  const string =
    typeof text === 'string' ? text : Buffer.from(text).toString('utf8')
  return string.replace(UNSAFE, escaped)
}

/** Whether printable() would leave all of it as it is. */
export function isPrintable(text: string): boolean {
  return text.search(UNSAFE) < 0
}

function escaped(character: string): string {
  if (character === '\n') return '\\n'
  if (character === '\r') return '\\r'
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}
