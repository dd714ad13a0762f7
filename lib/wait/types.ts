// What a watch does, so that each platform can have its own: one list for all
// on Linux (epoll.ts), one by one elsewhere (socket-watch.ts).
// Read next: lib/wait/epoll.ts.

/** A read would not block: there are bytes, the end of file, or an error. */
export const READABLE = 1
/** A write would not block: there is room, or the peer is gone. */
export const WRITABLE = 4

/**
 * So many messages or connections of one descriptor in one turn of the event
 * loop. What is left waits for the next turn, so that others get theirs.
 */
export const PER_TURN = 64

/**
 * When a watch tells, in the words of epoll(7).
 *
 * 'edge': only when more has come. So wait() may be called only after a call
 * has said EAGAIN; to wait again then costs no system call.
 *
 * 'level': also when something was there before, or was left.
 */
export type Trigger = 'edge' | 'level'

/** Called with those events that were waited for, and are so. */
export type OnReady = (events: number) => void

/** What waits for one descriptor, which it does not own. */
export type Watch = {
  /**
   * Has `onReady` called once for each of `events`; for another time, wait() is
   * called again. It may be called in vain, and never within wait(). The
   * process stays alive meanwhile (but see unref).
   *
   * @param events READABLE, WRITABLE or both
   * @throws Error EBADF; EPERM or ERR_INVALID_FD_TYPE for what never blocks,
   * such as a file; EMFILE, ENFILE, ENOMEM; ENOSPC at the limit of watches
   * (epoll(7)); EINVAL beyond 500 watches of one open file description. Then
   * nothing waits
   */
  wait(events: number): void
  /** Why this Node cannot wait, if it cannot: then `onReady` is called, too. */
  readonly failure: Error | undefined
  /** Nobody waits for these any more. */
  cancel(events: number): void
  /** To wait for READABLE keeps the process alive, as it does at first. */
  ref(): void
  /** To wait for READABLE does not keep the process alive. */
  unref(): void
  /**
   * Ends all waiting, for good. To be called before the descriptor is closed:
   * the kernel's list names the open file description, which lives on if
   * another process has it too.
   */
  end(): void
}

/** The event loop's own watch of one descriptor. */
export type LoopWatch = {
  /** It keeps the process alive, which it does not at first. */
  ref(): void
  unref(): void
}
