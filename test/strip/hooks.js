// The hook of Node that loads a module: it strips the types of a .ts file. What
// was stripped once is kept in .cache/: to load TypeScript, which finds the types,
// takes longer than most tests.

import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { threadId } from 'node:worker_threads'

const CACHE = fileURLToPath(new URL('../../.cache/stripped', import.meta.url))
const require = createRequire(import.meta.url)

/** @see https://nodejs.org/api/module.html#loadurl-context-nextload */
export function load(url, context, nextLoad) {
  const { protocol, pathname } = new URL(url)
  if (protocol !== 'file:' || !pathname.endsWith('.ts')) {
    return nextLoad(url, context)
  }
  const text = readFileSync(fileURLToPath(url), 'utf8')
  return { format: 'module', source: stripped(text), shortCircuit: true }
}

function stripped(text) {
  const name = createHash('sha1').update(text).digest('hex')
  const file = `${CACHE}/${name}.js`
  try {
    return readFileSync(file, 'utf8')
  } catch {
    const source = require('amaro').transformSync(text).code
    keep(file, source)
    return source
  }
}

function keep(file, source) {
  // Complete from the moment it has its name: others read it.
  const unfinished = `${file}.${process.pid}.${threadId}`
  try {
    mkdirSync(CACHE, { recursive: true })
    writeFileSync(unfinished, source)
    renameSync(unfinished, file)
  } catch {
    // As another user, who may not write here, or without a free descriptor.
  }
}
