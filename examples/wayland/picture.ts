// The picture in the window, as XRGB8888 pixels: two descriptor tables, the
// open file description that both lead to, and dots on their way from one to
// the other. It is all made of boxes, most with round corners. Used by
// window.ts; nothing here knows of Wayland or passes a descriptor.

// Drawn as if the window had this size, and scaled to the one it has.
const WIDTH = 640
const HEIGHT = 440

// ASCII from the space on, 5 by 8 pixels: a digit in base 32 is a row of one.
const FONT = [
  '0000000044444040aaa00000aavavaa04fke5u40op248j308kk8lid04480000024888420',
  '8422248004lel400044v440000000448000v000000000cc011248gg0ehjlphe04c4444e0',
  'eh1248v0v2421he026aiv220vgu11he068guhhe0v1248880ehhehhe0ehhf12c000cc0cc0',
  '00cc0448248g842000v0v00084212480eh124040eh1dlle0ehhvhhh0uhhuhhu0ehggghe0',
  'sihhhis0vgguggv0vgguggg0ehgnhhf0hhhvhhh0e44444e072222ic0hikokih0ggggggv0',
  'hrllhhh0hhpljhh0ehhhhhe0uhhuggg0ehhhlid0uhhukih0fgge11u0v4444440hhhhhhe0',
  'hhhhha40hhhllla0hha4ahh0hhha4440v1248gv0e88888e0gg842110e22222e04ah00000',
  '000000v08420000000e1fhf0ggmphhu000egghe011djhhf000ehvge0698s888000fhhf1e',
  'ggmphhh040c444e0206222icggikoki0c44444e000qllhh000mphhh000ehhhe000uhhugg',
  '00fhhf1100mpggg000ege1u088s8896000hhhjd000hhha4000hhlla000ha4ah000hhhf1e',
  '00v248v0244844204444444084424480008l2000',
].join('')

// The byte that means nothing: weston-screenshooter takes it for alpha.
const OPAQUE = 0xff000000
const BACKGROUND = 0x10151f
const CARD = 0x1b2333
const LINE = 0x46557a
const TEXT = 0xd8e0ee
const FAINT = 0x8391ad
const OURS = 0xffb454
const THEIRS = 0x5ad1c2

const SPEED = 0.11 // of the dots, a millisecond
const TOP = 60 // of the tables
const ROW = 26 // from each of their rows to the next
const SHARED = TOP + 82 + 4 * ROW // the middle of the last
const CORNERS = [
  [238, SHARED],
  [284, SHARED],
  [284, 336],
  [356, 336],
  [356, SHARED],
  [402, SHARED],
] as const

// Where the dots go: from one table through the middle to the other.
const WAY = CORNERS.slice(1).flatMap(([toX, toY], index) => {
  const [x = 0, y = 0] = CORNERS[index] ?? []
  const length = Math.abs(toX - x) + Math.abs(toY - y)
  const [stepX, stepY] = [(toX - x) / length, (toY - y) / length]
  return Array.from(
    { length },
    (_, n) => [x + n * stepX, y + n * stepY] as const,
  )
})

export class Picture {
  readonly #width: number
  readonly #scale: number
  readonly #left: number
  readonly #top: number
  readonly #pixels: Uint32Array
  readonly #still: Uint32Array

  /** @param pid the compositor's */
  constructor(
    width: number,
    height: number,
    fd: number,
    socket: number,
    pid: number,
  ) {
    this.#width = width
    this.#scale = Math.min(width / WIDTH, height / HEIGHT)
    this.#left = Math.floor((width - WIDTH * this.#scale) / 2)
    this.#top = Math.floor((height - HEIGHT * this.#scale) / 2)
    this.#pixels = new Uint32Array(width * height).fill(OPAQUE | BACKGROUND)

    this.#text(WIDTH / 2, 24, 'one file, two descriptors', FAINT)
    this.#box(150, 316, 340, 84, 12, CARD)
    for (const [x, y] of WAY) this.#box(x - 1, y - 1, 3, 3, 0, LINE)
    const ours = ['0 stdin', '1 stdout', '2 stderr', `${socket} socket`]
    this.#table(40, OURS, 'window.ts', process.pid, [...ours, `${fd} pixels`])
    const theirs = ['0', '1', '2', '...', 'another number']
    this.#table(392, THEIRS, 'compositor', pid, theirs)
    this.#text(WIDTH / 2, 350, 'open file description', TEXT)
    const megabytes = ((8 * width * height) / 1e6).toFixed(1)
    this.#text(WIDTH / 2, 373, `file in memory, ${megabytes} MB`, FAINT)
    this.#still = this.#pixels.slice()
  }

  fits(width: number, height: number): boolean {
    return this.#width === width && this.#pixels.length === width * height
  }

  /** The pixels at a time, in milliseconds. Good until the next call. */
  at(time: number, typed: string): Uint32Array {
    this.#pixels.set(this.#still)
    this.#text(WIDTH / 2, 414, typed.slice(-48), TEXT)
    for (let dot = 0; dot < 3; dot++) {
      const head = (time * SPEED + (dot * WAY.length) / 3) % WAY.length
      for (let behind = 30; behind >= 0; behind -= 2) {
        const [x, y] = WAY[Math.floor(head - behind)] ?? [0, 0]
        if (x === 0) continue
        const radius = 6 - behind / 8
        const colour = mix(OURS, THEIRS, (head - behind) / WAY.length)
        const alpha = (1 - behind / 32) ** 2
        this.#box(
          x - radius,
          y - radius,
          2 * radius,
          2 * radius,
          radius,
          colour,
          alpha,
        )
      }
    }
    return this.#pixels
  }

  #table(
    x: number,
    colour: number,
    title: string,
    pid: number,
    rows: readonly string[],
  ): void {
    this.#box(x, TOP, 208, 80 + rows.length * ROW, 12, CARD)
    this.#text(x + 104, TOP + 16, title, colour)
    this.#text(x + 104, TOP + 38, `pid ${pid}`, FAINT)
    for (const [index, row] of rows.entries()) {
      const y = TOP + 72 + index * ROW
      const isShared = index === rows.length - 1
      this.#box(x + 12, y - 1, 184, ROW - 4, 5, isShared ? colour : LINE, 0.25)
      this.#text(x + 104, y + 2, row, isShared ? colour : TEXT)
    }
  }

  // Centred on x. A character that the font lacks is shown as a question mark.
  #text(x: number, y: number, text: string, colour: number): void {
    for (const [index, character] of [...text].entries()) {
      const left = x + (index - text.length / 2) * 12
      const code = character.codePointAt(0) ?? 0
      const glyph = (code < 32 || code > 126 ? 63 : code) - 32
      for (let row = 0; row < 8; row++) {
        const bits = Number.parseInt(FONT[glyph * 8 + row] ?? '0', 32)
        for (let column = 0; column < 5; column++) {
          if ((bits & (16 >> column)) === 0) continue
          this.#box(left + column * 2, y + row * 2, 2, 2, 0, colour)
        }
      }
    }
  }

  // A pixel is covered by how far its centre lies inside the outline.
  #box(
    x: number,
    y: number,
    width: number,
    height: number,
    radius: number,
    colour: number,
    alpha = 1,
  ): void {
    const [s, r] = [this.#scale, radius * this.#scale]
    const [left, top] = [x * s + this.#left, y * s + this.#top]
    const [w, h] = [(width * s) / 2, (height * s) / 2]
    for (let py = Math.floor(top); py < top + 2 * h; py++) {
      for (let px = Math.floor(left); px < left + 2 * w; px++) {
        const dx = Math.abs(px + 0.5 - left - w) - w + r
        const dy = Math.abs(py + 0.5 - top - h) - h + r
        const isCorner = dx > 0 && dy > 0
        const out = isCorner ? Math.sqrt(dx * dx + dy * dy) : Math.max(dx, dy)
        const cover = Math.min(Math.max(r - out + 0.5, 0), 1) * alpha
        const at = py * this.#width + px
        this.#pixels[at] = mix(this.#pixels[at] ?? 0, colour, cover)
      }
    }
  }
}

function mix(from: number, to: number, part: number): number {
  if (part === 0) return from
  const red = blend((from >> 16) & 255, (to >> 16) & 255, part)
  const green = blend((from >> 8) & 255, (to >> 8) & 255, part)
  const blue = blend(from & 255, to & 255, part)
  return OPAQUE | (red << 16) | (green << 8) | blue
}

function blend(from: number, to: number, part: number): number {
  return Math.round(from + (to - from) * part)
}
