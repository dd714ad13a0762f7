// The pixels of a PNG file, as weston-screenshooter writes it: 8 bits for each
// of red, green, blue and perhaps alpha, not interlaced. Not a test itself.

import { readFileSync } from 'node:fs'
import { inflateSync } from 'node:zlib'

export type Image = {
  readonly width: number
  readonly height: number
  /** The colour there, as 0xrrggbb. */
  readonly at: (x: number, y: number) => number
}

export function readPng(path: string): Image {
  const file = readFileSync(path)
  const parts: Buffer[] = []
  let header = Buffer.alloc(0)
  for (let at = 8; at < file.length; ) {
    const length = file.readUInt32BE(at)
    const type = file.toString('latin1', at + 4, at + 8)
    const body = file.subarray(at + 8, at + 8 + length)
    if (type === 'IHDR') header = body
    if (type === 'IDAT') parts.push(body)
    at += length + 12
  }
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)]
  const [depth, colours, , , interlaced] = header.subarray(8)
  const bytes = colours === 6 ? 4 : 3
  if (depth !== 8 || (colours !== 2 && colours !== 6) || interlaced !== 0)
    throw new Error(`Expected 8 bits RGB, got ${header.toString('hex')}`)
  const rows = unfilter(inflateSync(Buffer.concat(parts)), width * bytes, bytes)
  const at = (x: number, y: number) => {
    return rows.readUIntBE((y * width + x) * bytes, 3)
  }
  return { width, height, at }
}

// Each row begins with its filter, which says what was subtracted from it: the
// pixel on the left, the one above, their mean, or what Paeth predicts.
function unfilter(data: Buffer, length: number, bytes: number): Buffer {
  const height = data.length / (length + 1)
  const rows = Buffer.alloc(height * length)
  for (let y = 0; y < height; y++) {
    const filter = data[y * (length + 1)]
    for (let x = 0; x < length; x++) {
      const at = y * length + x
      const a = x < bytes ? 0 : (rows[at - bytes] ?? 0)
      const b = y === 0 ? 0 : (rows[at - length] ?? 0)
      const c = x < bytes || y === 0 ? 0 : (rows[at - length - bytes] ?? 0)
      const added = [0, a, b, (a + b) >> 1, paeth(a, b, c)][filter ?? 0] ?? 0
      rows[at] = (data[y * (length + 1) + 1 + x] ?? 0) + added
    }
  }
  return rows
}

function paeth(a: number, b: number, c: number): number {
  const estimate = a + b - c
  const [toA, toB, toC] = [a, b, c].map((n) => Math.abs(estimate - n))
  if (toA === undefined || toB === undefined || toC === undefined) return 0
  if (toA <= toB && toA <= toC) return a
  return toB <= toC ? b : c
}
