// How C is called, with whatever engine this run has.

import { constants } from 'node:os'
import { t } from 'tap'

import { host } from '../../lib/layouts.ts'
import {
  addressOf,
  allocate,
  check,
  declare,
  declareOptional,
  hasFunction,
  NULL,
  systemError,
  toAddress,
} from '../../lib/libc.ts'

t.test('declare() gives what C returns, or -errno', async (t) => {
  // int dup(int fd)
  const dup = declare('dup', 'int', ['int'])
  t.equal(dup(-1), -9, 'EBADF')
  // pid_t getpid(void)
  t.equal(declare('getpid', 'int', [])(), process.pid)
  // int strcmp(const char *one, const char *other)
  const strcmp = declare('strcmp', 'int', ['pointer', 'pointer'])
  const text = allocate(16)
  text.bytes.write('same\0same\0more')
  t.equal(strcmp(text.address, toAddress(text.base + 5)), 0)
  t.not(strcmp(text.address, toAddress(text.base + 10)), 0)
})

t.test('declare() takes any number of arguments', async (t) => {
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
  const getsockopt = declare('getsockopt', 'int', [
    'int',
    'int',
    'int',
    'pointer',
    'pointer',
  ])
  t.equal(getsockopt(-1, 0, 0, NULL, NULL), -9)
  // ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
  const sendmsg = declare('sendmsg', 'size', ['int', 'pointer', 'int'])
  t.equal(sendmsg(-1, NULL, 0), -9)
  // int accept4(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
  const accept4 = declare('accept4', 'int', [
    'int',
    'pointer',
    'pointer',
    'int',
  ])
  t.equal(accept4(-1, NULL, NULL, 0), -9)
  // ssize_t recvfrom(int fd, void *buffer, size_t length, int flags,
  //                  struct sockaddr *addr, socklen_t *addrlen)
  const recvfrom = declare('recvfrom', 'size', [
    'int',
    'pointer',
    'pointer',
    'int',
    'pointer',
    'pointer',
  ])
  t.equal(recvfrom(-1, NULL, NULL, 0, NULL, NULL), -9)
})

t.test('declare() of a missing function throws when called', async (t) => {
  const missing = declare('no_such_function', 'int', ['int'])
  t.throws(() => missing(1), /no_such_function/)
})

t.test('declareOptional() of a missing function says ENOSYS', async (t) => {
  const missing = declareOptional('no_such_function', 'size', ['int'])
  for (const time of ['first', 'second', 'third']) {
    t.equal(missing(1), -constants.errno.ENOSYS, `${time} call`)
  }
  // int dup(int fd)
  const dup = declareOptional('dup', 'int', ['int'])
  t.equal(dup(-1), -constants.errno.EBADF, 'what is there works as declared')
  // pid_t getpid(void)
  t.equal(declareOptional('getpid', 'int', [])(), process.pid)
})

t.test('hasFunction() tells what is there', async (t) => {
  t.equal(hasFunction('no_such_function'), false)
  t.equal(hasFunction('getpid'), true)
})

// int memcmp(const void *one, const void *other, size_t length): a size_t is as
// wide as a pointer.
const memcmp = declare('memcmp', 'int', ['pointer', 'pointer', 'pointer'])

/** Whether C finds what `bytes` holds where addressOf() says. */
function isFoundByC(bytes: Uint8Array): boolean {
  const copy = allocate(bytes.length)
  copy.bytes.set(bytes)
  const address = toAddress(addressOf(bytes))
  return memcmp(address, copy.address, toAddress(bytes.length)) === 0
}

/** `length` bytes, each unlike its neighbours, at `offset` of `memory`. */
function filled(
  memory: ArrayBufferLike,
  offset: number,
  length: number,
): Uint8Array {
  const bytes = new Uint8Array(memory, offset, length)
  for (let i = 0; i < length; i++) bytes[i] = (i * 7 + offset) % 251
  return bytes
}

const SIZE = 20_000

type WasmMemory = new (descriptor: {
  initial: number
  maximum: number
  shared: boolean
}) => { readonly buffer: ArrayBufferLike }

t.test('addressOf() finds views of one ArrayBuffer', async (t) => {
  const memory = new ArrayBuffer(3 * SIZE)
  for (const offset of [0, 1, 7, 8, SIZE, 2 * SIZE - 1]) {
    const bytes = filled(memory, offset, SIZE)
    t.ok(isFoundByC(bytes), `at ${offset}`)
    t.ok(isFoundByC(bytes.subarray(3)), `and what is in it from 3 on`)
  }
  const whole = filled(memory, 0, 3 * SIZE)
  t.equal(addressOf(whole.subarray(5)), addressOf(whole) + 5)
  t.ok(isFoundByC(Buffer.from('text '.repeat(SIZE))))
})

t.test('addressOf() finds memory of every kind', async (t) => {
  const resizable = [SIZE, { maxByteLength: 2 * SIZE }]
  const wasm: { Memory: WasmMemory } = Reflect.get(globalThis, 'WebAssembly')
  const pages = { initial: 1, maximum: 2 }
  const kinds: Record<string, ArrayBufferLike> = {
    SharedArrayBuffer: new SharedArrayBuffer(SIZE),
    'a SharedArrayBuffer that grows': Reflect.construct(
      SharedArrayBuffer,
      resizable,
    ),
    'an ArrayBuffer that is resized': Reflect.construct(ArrayBuffer, resizable),
    'memory of WebAssembly': new wasm.Memory({ ...pages, shared: false })
      .buffer,
    'shared memory of WebAssembly': new wasm.Memory({ ...pages, shared: true })
      .buffer,
  }
  for (const [name, buffer] of Object.entries(kinds)) {
    t.ok(isFoundByC(filled(buffer, 0, SIZE)), name)
    t.ok(isFoundByC(filled(buffer, 13, SIZE - 13)), `${name}, a part`)
  }
})

t.test('addressOf() finds what was resized where it was', async (t) => {
  const options = [SIZE, { maxByteLength: 64 * SIZE }]
  const buffer: ArrayBuffer & { resize(byteLength: number): void } =
    Reflect.construct(ArrayBuffer, options)
  t.ok(isFoundByC(filled(buffer, 0, SIZE)))
  buffer.resize(64 * SIZE)
  t.ok(isFoundByC(filled(buffer, 63 * SIZE, SIZE)))
})

t.test('addressOf() finds a view behind the first 4 GiB', async (t) => {
  const GIB = 2 ** 30
  let memory: ArrayBuffer
  try {
    // The system gives memory to those pages only that are used.
    memory = new ArrayBuffer(4 * GIB + SIZE)
  } catch (error) {
    t.pass('found', { skip: `no ArrayBuffer of this size here: ${error}` })
    return
  }
  t.ok(isFoundByC(filled(memory, 4 * GIB - 100, SIZE)))
})

t.test('check() throws failures in the shape of Node', async (t) => {
  t.equal(check('dup', 5), 5)
  t.equal(check('dup', 0), 0, 'descriptor 0 is one')
  t.throws(() => check('dup', -9), { message: /^dup EBADF$/ })
  t.equal(systemError('dup', -9).message, 'dup EBADF')
  t.throws(() => check('dup', -9, 'descriptor 7'), {
    code: 'EBADF',
    errno: -9,
    syscall: 'dup',
    message: 'dup EBADF descriptor 7',
  })
})

t.test('systemError() knows the error that libuv does not', async (t) => {
  t.match(systemError('sendmsg', -host.constants.ETOOMANYREFS), {
    code: 'ETOOMANYREFS',
    message: 'sendmsg ETOOMANYREFS',
  })
})

t.test('a runtime that cannot wait is refused at the import', async (t) => {
  const refuseOtherRuntimes = (): void => {
    throw new Error('Expected Node')
  }
  const imported = t.mockImport('../../lib/libc.ts', {
    '../../lib/ffi/runtime.ts': { refuseOtherRuntimes },
  })
  await t.rejects(imported, { message: 'Expected Node' })
})
