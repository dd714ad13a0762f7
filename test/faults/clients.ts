// Clients of faults.ts that are no scripts of the project: what nc(1) and
// curl(1) would do. A run ends with code 0 if the answer is whole.

import { request } from 'node:http'
import { connect, type Socket } from 'node:net'

import type { Run } from './run.ts'

/** Sends `text` to a server on `path`, and reads it back to the end. */
export function echo(path: string, text: string, limit: number): Promise<Run> {
  const socket = connect(path, () => socket.end(text))
  return ended(socket, limit, text)
}

/** Is silent for long enough to be parked, and goes on. */
export function talk(port: string, token: string, limit: number): Promise<Run> {
  const socket = connect(Number(port), '127.0.0.1')
  socket.write(`${token}\n`)
  socket.once('data', () => {
    setTimeout(() => socket.end('again\n'), 400).unref()
  })
  return ended(socket, limit, `1: ${token}\n2: again\n`)
}

function ended(socket: Socket, limit: number, expected: string): Promise<Run> {
  return new Promise((resolve) => {
    let stdout = ''
    let hung = false
    let stderr = ''
    const timer = setTimeout(() => {
      hung = true
      socket.destroy()
    }, limit)
    socket.on('data', (chunk) => {
      stdout += chunk
    })
    socket.on('error', (error) => {
      stderr = error.message
    })
    socket.once('close', () => {
      clearTimeout(timer)
      const code = stdout === expected ? 0 : 1
      resolve({ code, signal: null, hung, stdout, stderr })
    })
  })
}

/** One HTTP request. */
export function get(where: object, limit: number): Promise<Run> {
  return new Promise((resolve) => {
    const asked = request({ path: '/', ...where, agent: false })
    const end = (code: number, stdout: string, stderr = ''): void => {
      clearTimeout(timer)
      resolve({ code, signal: null, hung: stderr === 'hung', stdout, stderr })
    }
    const timer = setTimeout(() => asked.destroy(new Error('hung')), limit)
    asked.once('error', ({ message }) => end(1, '', message))
    asked.once('response', async (response) => {
      let text = ''
      for await (const chunk of response) text += chunk
      end(0, text)
    })
    asked.end()
  })
}
