// The memory of libuv's handles, and the functions that take them. libuv writes
// into a handle until it has called back that the handle is closed. So handles
// lie in blocks that are never freed, and a place in a block is used again only
// after that.
// Read next: lib/script/cli.ts.

import { openNodeFfi } from '../ffi/node-ffi.ts'
import { allocate, type Memory, systemError } from '../libc.ts'

const UV_POLL = 8 // enum uv_handle_type

export const READABLE = 1 // enum uv_poll_event
export const WRITABLE = 2

const HANDLES_PER_BLOCK = 64

/** Whose note() libuv's callback calls. It must not throw. */
type Owner = { note(status: number, events: number): void }

type Uv = ReturnType<typeof openUv>

let uv: Uv | undefined
/** The events that may be polled for: none once the process ends. */
let allowed = READABLE | WRITABLE
const blocks: Memory[] = []
const free: bigint[] = []
const owners = new Map<bigint, Owner>()

/** libuv's functions, those that return an int with 0 or -errno. */
export function libuv(): Uv {
  uv ??= openUv()
  return uv
}

function openUv() {
  process.prependOnceListener('exit', stopAll)
  const { ffi, library } = openNodeFfi()
  const int = (name: string, ...params: string[]) =>
    library.getFunction(name, { return: 'int32', arguments: params })
  const nothing = (name: string, ...params: string[]) =>
    library.getFunction(name, { return: 'void', arguments: params })
  return {
    // uv_loop_t of this thread
    loop: ffi.getCurrentEventLoop(),
    // size_t uv_handle_size(uv_handle_type type)
    handleSize: int('uv_handle_size', 'int32')(UV_POLL),
    // int uv_poll_init(uv_loop_t *loop, uv_poll_t *handle, int fd)
    init: int('uv_poll_init', 'pointer', 'pointer', 'int32'),
    // int uv_poll_start(uv_poll_t *handle, int events, uv_poll_cb callback)
    start: int('uv_poll_start', 'pointer', 'int32', 'pointer'),
    // int uv_poll_stop(uv_poll_t *handle)
    stop: int('uv_poll_stop', 'pointer'),
    // void uv_ref(uv_handle_t *handle)
    ref: nothing('uv_ref', 'pointer'),
    // void uv_unref(uv_handle_t *handle)
    unref: nothing('uv_unref', 'pointer'),
    // void uv_close(uv_handle_t *handle, uv_close_cb callback)
    close: nothing('uv_close', 'pointer', 'pointer'),
    // void (*uv_poll_cb)(uv_poll_t *handle, int status, int events)
    callback: library.registerCallback(
      { return: 'void', arguments: ['pointer', 'int32', 'int32'] },
      (handle, status, events) => owners.get(handle)?.note(status, events),
    ),
    // void (*uv_close_cb)(uv_handle_t *handle)
    closed: library.registerCallback(
      { return: 'void', arguments: ['pointer'] },
      (handle) => free.push(handle),
    ),
    // Callbacks are freed with their library.
    library,
  }
}

/**
 * A handle that polls `fd`, once it is started; unreferenced.
 *
 * @throws Error EBADF; EPERM for what cannot be polled, such as a file; EEXIST
 * for what Node polls already
 */
export function newHandle(fd: number, owner: Owner): bigint {
  const { loop, init, unref } = libuv()
  const handle = free.pop() ?? addBlock()
  const made = init(loop, handle, fd)
  if (made < 0) {
    free.push(handle)
    throw systemError('uv_poll_init', made, `descriptor ${fd}`)
  }
  unref(handle)
  owners.set(handle, owner)
  return handle
}

/** Polls for these events, and no others. 0 or -errno. */
export function poll(handle: bigint, events: number): number {
  const { start, stop, callback } = libuv()
  const wanted = events & allowed
  return wanted === 0 ? stop(handle) : start(handle, wanted, callback)
}

/** Ends the polling. The descriptor may be closed right after that. */
export function closeHandle(handle: bigint): void {
  const { close, closed } = libuv()
  owners.delete(handle)
  close(handle, closed)
}

// At its end Node runs the event loop once more, when no JavaScript can run:
// a callback would abort the process.
function stopAll(): void {
  allowed = 0
  for (const handle of owners.keys()) poll(handle, 0)
  libuv().closed = 0n
}

// The first handle of a new block. The others are free.
function addBlock(): bigint {
  const { handleSize } = libuv()
  const block = allocate(HANDLES_PER_BLOCK * handleSize)
  blocks.push(block)
  for (let at = handleSize; at < block.bytes.length; at += handleSize) {
    free.push(BigInt(block.base + at))
  }
  return BigInt(block.base)
}
