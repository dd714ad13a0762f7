// HTTP servers on listening sockets that others share, and above all how to
// stop serving. Used by server.ts. Open listen(2); RFC 9112, 9.6 ("Tear-down").

import { once } from 'node:events'
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import { Server as NetServer } from 'node:net'

import { duplicate } from '../../lib/index.ts'

const servers: Server[] = []
let leaving = false

/**
 * Accepts connections on a listening socket and answers them. `fd` remains the
 * caller's: the server has a duplicate, and closes that. Closing it leaves a
 * socket file alone, unlike closing a server that made the file.
 */
export async function serve(fd: number): Promise<void> {
  const server = createServer(answer)
  server.listen({ fd: duplicate(fd) })
  await once(server, 'listening')
  servers.push(server)
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  const [, delay = '0'] = /[?&]delay=(\d{1,5})\b/.exec(request.url ?? '') ?? []
  const timer = setTimeout(() => {
    // The client comes back with a new connection, to whoever accepts then.
    if (leaving) response.setHeader('Connection', 'close')
    response.end(`Hello from process ${process.pid}\n`)
  }, Number(delay))
  response.once('close', () => clearTimeout(timer))
}

/**
 * Accepts nothing from now on and ends with the last connection.
 *
 * @param deadline ms after which the connections that are left are cut
 */
export async function finish(options: {
  deadline: number
  hasSuccessor: boolean
}): Promise<void> {
  leaving = true
  const timer = setTimeout(cutOff, options.deadline)
  const ends = servers.map((server) => {
    const end = once(server, 'close')
    // close() of an HTTP server also closes connections that are idle, perhaps
    // under a request that is on its way. close() of the net.Server below it
    // does not: an idle client can make one more request, and is told to hang
    // up in the answer.
    if (options.hasSuccessor) NetServer.prototype.close.call(server)
    else server.close()
    return end
  })
  await Promise.all(ends)
  clearTimeout(timer)
}

/** Ends all connections, whatever they are doing. */
export function cutOff(): void {
  for (const server of servers) server.closeAllConnections()
}

export function isLeaving(): boolean {
  return leaving
}
