// Which engine makes the calls: chosen by FDPASS_FFI, or by what there is.

import { t } from 'tap'

import { chooseEngine } from '../../../lib/ffi/choose.ts'
import type { Engine } from '../../../lib/ffi/types.ts'
import { plainEnv, run, script } from '../../support/processes.ts'

function pretend(name: Engine['name']): Engine {
  const nothing = (): never => {
    throw new Error('Expected no call')
  }
  return { name, declare: nothing, toAddress: nothing, locate: nothing }
}

const both = {
  'ffi-rs': () => pretend('ffi-rs'),
  node: () => pretend('node:ffi'),
}

function fails(message: string): () => never {
  return () => {
    throw new Error(message)
  }
}

t.test('chooseEngine() takes what is asked for, else ffi-rs', async (t) => {
  t.equal(chooseEngine(undefined, both).name, 'ffi-rs')
  t.equal(chooseEngine('', both).name, 'ffi-rs')
  t.equal(chooseEngine('ffi-rs', both).name, 'ffi-rs')
  t.equal(chooseEngine('node', both).name, 'node:ffi')
  t.throws(() => chooseEngine('NODE', both), {
    message: 'Expected FDPASS_FFI to be ffi-rs or node, got NODE',
  })
})

t.test(
  'chooseEngine() takes node:ffi where ffi-rs cannot be had',
  async (t) => {
    const noBinary = { ...both, 'ffi-rs': fails('no binary\nlist of files') }
    t.equal(chooseEngine(undefined, noBinary).name, 'node:ffi')
    t.throws(() => chooseEngine('ffi-rs', noBinary), /no binary/)
    const none = { ...noBinary, node: fails('no module') }
    t.throws(() => chooseEngine(undefined, none), {
      message:
        'Expected a foreign function interface, got none. ' +
        'ffi-rs: no binary. node:ffi: no module',
    })
  },
)

const source = `import { engineName } from './lib/libc.ts'
console.log(engineName)`
const tell = [...script('--input-type=module', '-e'), source]

t.test('FDPASS_FFI: ffi-rs unless told otherwise', async (t) => {
  for (const wanted of [undefined, 'ffi-rs']) {
    const env = plainEnv({ FDPASS_FFI: wanted })
    const { stdout, stderr } = await run(t, tell, { env })
    t.equal(stdout, 'ffi-rs\n', stderr)
  }
  const env = plainEnv({ FDPASS_FFI: 'koffi' })
  const { code, stderr } = await run(t, tell, { env })
  t.equal(code, 1)
  t.match(stderr, 'Expected FDPASS_FFI to be ffi-rs or node, got koffi')
})

const hasNodeFfi = process.allowedNodeEnvironmentFlags.has('--experimental-ffi')

t.test('FDPASS_FFI=node: node:ffi, or what it needs', async (t) => {
  const env = plainEnv({ FDPASS_FFI: 'node' })
  const expected = /Expected node:ffi, which Node has from 26\.10 on, .* got /
  if (!hasNodeFfi) {
    const { code, stderr } = await run(t, tell, { env })
    t.equal(code, 1)
    t.match(stderr, expected)
    return
  }
  const { stdout, stderr } = await run(t, tell, { env })
  t.equal(stdout, 'node:ffi\n', stderr)
  const [node = '', ...args] = tell
  const turnedOff = await run(t, [node, '--no-experimental-ffi', ...args], {
    env,
  })
  t.equal(turnedOff.code, 1)
  t.match(turnedOff.stderr, expected)
})

t.test(
  'FDPASS_FFI=node: --allow-ffi under the Permission Model',
  { skip: hasNodeFfi ? false : 'this Node has no node:ffi' },
  async (t) => {
    const env = plainEnv({ FDPASS_FFI: 'node' })
    const start = [process.execPath, '--permission', '--allow-fs-read=*']
    const rest = ['--input-type=module', '-e', source]
    const refused = await run(t, [...start, ...rest], { env })
    t.equal(refused.code, 1)
    t.match(
      refused.stderr,
      /Expected node:ffi, .*--allow-ffi; got .*restricted/,
    )
    const allowed = await run(t, [...start, '--allow-ffi', ...rest], {
      env,
    })
    t.equal(allowed.stdout, 'node:ffi\n', allowed.stderr)
  },
)
