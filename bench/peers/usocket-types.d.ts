// As far as the measurement uses it; the package brings no types.

declare module 'usocket' {
  import type { Duplex } from 'node:stream'

  type Message = { data?: Buffer; fds?: readonly number[] }

  export class USocket extends Duplex {
    constructor(options: { fd: number } | { path: string })
    read(size?: number): Buffer | null
    read(size: null, fds: null): { data: Buffer | null; fds: number[] } | null
    write(message: Message | Buffer, callback?: () => void): boolean
  }

  export class UServer {
    on(event: 'connection', listener: (socket: USocket) => void): this
    listen(path: string, backlog: number, callback: () => void): void
  }
}
