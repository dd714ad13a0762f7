// How the files hang together: who imports whom.

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { t } from 'tap'

/** Folders of lib/, and for each those that its files may import from. */
const ALLOWED: Record<string, readonly string[]> = {
  lib: ['lib', 'lib/ffi'],
  'lib/ffi': ['lib', 'lib/ffi'],
  'lib/socket': ['lib', 'lib/socket'],
  'lib/wait': ['lib', 'lib/ffi', 'lib/socket', 'lib/wait'],
  'lib/stream': ['lib', 'lib/socket', 'lib/wait', 'lib/stream'],
  'lib/conn': ['lib', 'lib/socket', 'lib/wait', 'lib/conn'],
  'lib/script': ['lib', 'lib/socket', 'lib/stream', 'lib/wait', 'lib/script'],
}

/** What the lesson is for: it may import from everywhere but lib/script. */
const ENTRY = 'lib/index.ts'

/** Examples of what lib/ is made of: they import from all over it. */
const INSIDE = ['examples/bare.ts', 'examples/bytes.ts', 'examples/gotchas']

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.includes('node_modules'))
    .map((name) => join(folder, name))
}

function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8')
  const found = text.matchAll(/\b(?:from|import)\s*\(?\s*'([^']+)'/g)
  return [...found].map(([, name = '']) =>
    name.startsWith('.') ? normalize(join(dirname(file), name)) : name,
  )
}

const graph = new Map(
  ['lib', 'bench'].flatMap(filesIn).map((file) => [file, importsOf(file)]),
)

/** The first circle that can be reached from `file`, as a path. */
function circleFrom(
  file: string,
  path: readonly string[],
  done: Set<string>,
): string | undefined {
  if (path.includes(file)) return [...path, file].join(' -> ')
  if (done.has(file)) return undefined
  for (const next of graph.get(file) ?? []) {
    const circle = circleFrom(next, [...path, file], done)
    if (circle !== undefined) return circle
  }
  done.add(file)
  return undefined
}

t.test('no file imports itself by way of others', async (t) => {
  const known = [...graph.values()].flat().filter((name) => graph.has(name))
  t.ok(known.length > graph.size, `${known.length} imports were found`)
  const done = new Set<string>()
  for (const file of graph.keys()) {
    t.equal(circleFrom(file, [], done), undefined, file)
  }
})

t.test('conn imports wait, wait socket, socket the lesson', async (t) => {
  for (const file of filesIn('lib')) {
    const ours = importsOf(file).filter((name) => name.startsWith('lib/'))
    const folders = new Set(ours.map((name) => dirname(name)))
    const isEntry = file === ENTRY
    const allowed = isEntry ? Object.keys(ALLOWED) : ALLOWED[dirname(file)]
    const isScript = file.startsWith('lib/script/')
    for (const name of ours) {
      const isFine = allowed?.includes(dirname(name)) ?? false
      t.ok(isFine, `${file} imports ${name}`)
      if (name === ENTRY) t.ok(isScript, `${file} imports ${name}`)
    }
    if (isEntry) t.notOk(folders.has('lib/script'), 'not for the package')
  }
})

t.test('examples use lib/index.ts and lib/script, no other', async (t) => {
  const examples = filesIn('examples').filter(
    (file) => !INSIDE.includes(file) && !INSIDE.includes(dirname(file)),
  )
  t.ok(examples.length > 30, `${examples.length} files`)
  for (const file of ['client.ts', 'server.ts', ...examples]) {
    for (const name of importsOf(file)) {
      if (!/^(lib|examples)\//.test(name)) continue
      const isPublic = name === ENTRY || dirname(name) === 'lib/script'
      const isOwn = dirname(name) === dirname(file)
      t.ok(isPublic || isOwn, `${file} imports ${name}`)
    }
  }
})

t.test('only lib/ffi loads ffi-rs and node:ffi', async (t) => {
  // With import, or by a call: require(), what createRequire() gives, builtin().
  const engine =
    /(?:from |(?:import|require|builtin|\))\()'(?:ffi-rs|node:ffi)'/
  const loads = ['lib', 'bench', 'examples'].flatMap(filesIn).filter((file) => {
    return engine.test(readFileSync(file, 'utf8'))
  })
  t.strictSame(loads, ['lib/ffi/ffi-rs.ts', 'lib/ffi/node-ffi.ts'])
})
