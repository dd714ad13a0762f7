// A listening server, again and again: see subprocess.ts.

import { once } from 'node:events'
import { createServer } from 'node:net'

import { passHandles } from './subprocess.ts'

const server = createServer().listen(0, '127.0.0.1')
await once(server, 'listening')
await passHandles(import.meta.filename, server)
