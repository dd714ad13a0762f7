// A connection, again and again: see subprocess.ts.

import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'

import { passHandles } from './subprocess.ts'

const server = createServer({ pauseOnConnect: true }).listen(0, '127.0.0.1')
await once(server, 'listening')
const { port } = server.address() as AddressInfo
const socket = connect(port, '127.0.0.1')
await once(socket, 'connect')
await passHandles(import.meta.filename, socket)
