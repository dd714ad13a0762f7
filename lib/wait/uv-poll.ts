// The event loop's watch of one descriptor, by uv_poll, which is what libuv has
// for "readable". Node exports the functions of libuv for addons; node:ffi
// calls them. It takes less time than an empty read, and does the same. In the
// main thread only: libuv aborts the whole process if a thread ends while one
// of its handles is open. Open the pages uv_handle_t and uv_poll_t of libuv's
// documentation beside it.
//
// libuv calls back at a place where no JavaScript may throw and after which no
// promise goes on. So a callback only has setImmediate call the owner, in the
// same turn of the event loop.
// Read next: lib/wait/socket-watch.ts.

import { openNodeFfi } from '../ffi/node-ffi.ts'
import { allocate, type Memory, systemError } from '../libc.ts'
import type { LoopWatch } from './types.ts'

const UV_POLL = 8 // enum uv_handle_type
const UV_READABLE = 1 // enum uv_poll_event

/** Of the handles, to which libuv writes for as long as the process lives. */
const kept: Memory[] = []

/** Watches to the end of the process: it is never closed. */
export class UvPoll implements LoopWatch {
  readonly #handle: bigint
  readonly #uv: ReturnType<typeof openUv>
  #isOver = false
  #isNoted = false

  /**
   * Unreferenced at first. Neither owns `fd` nor sets anything on it but
   * O_NONBLOCK.
   *
   * @param onReadable called in each turn of the event loop in which a read
   * would not block
   * @throws Error EBADF; EPERM for what cannot be polled, such as a file
   */
  constructor(fd: number, onReadable: () => void) {
    const uv = openUv(() => {
      if (this.#isNoted) return
      this.#isNoted = true
      setImmediate(() => {
        this.#isNoted = false
        onReadable()
      })
    })
    const memory = allocate(uv.handleSize)
    kept.push(memory)
    this.#uv = uv
    this.#handle = BigInt(memory.base)
    const made = uv.init(uv.loop, this.#handle, fd)
    if (made < 0) throw systemError('uv_poll_init', made, `descriptor ${fd}`)
    uv.unref(this.#handle)
    const started = uv.start(this.#handle, UV_READABLE, uv.callback)
    if (started < 0) throw systemError('uv_poll_start', started)
    // At its end Node runs the event loop once more, when no JavaScript can
    // run: a callback would abort the process.
    process.prependOnceListener('exit', () => {
      this.#isOver = true
      uv.stop(this.#handle)
    })
  }

  /** Watching keeps the process alive. */
  ref(): void {
    if (!this.#isOver) this.#uv.ref(this.#handle)
  }

  /** Watching does not keep the process alive, as at first. */
  unref(): void {
    if (!this.#isOver) this.#uv.unref(this.#handle)
  }
}

// libuv's functions, those that return an int with 0 or -errno.
function openUv(onEvent: () => void) {
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
    // void (*uv_poll_cb)(uv_poll_t *handle, int status, int events)
    callback: library.registerCallback(
      { return: 'void', arguments: ['pointer', 'int32', 'int32'] },
      onEvent,
    ),
    // Callbacks are freed with their library.
    library,
  }
}
