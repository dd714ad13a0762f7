// The one public entry: everything that a program needs, and nothing more.
// Read next: lib/wait/watcher.ts.

// For users of the package: a new TypeScript project has no types of Node's.
/// <reference types="node" preserve="true" />

export {
  type ControlMessage,
  cmsgAlign,
  cmsgLen,
  cmsgSpace,
  parseControlMessages,
  parseUnixRights,
  unixRights,
} from './cmsg.ts'
export { socketpair, UnixConn } from './conn/conn.ts'
export { type ConnectOptions, connect } from './conn/connect.ts'
export {
  type Frame,
  type FrameOptions,
  framesOf,
  sendFrame,
} from './conn/frames.ts'
export type {
  FdStreamOptions,
  ReceivedFds,
  ReceiveOptions,
} from './conn/limits.ts'
export {
  type ListenOptions,
  listen,
  UnixListener,
} from './conn/listener.ts'
export { canonicalAddress, ListeningSocket } from './conn/listening.ts'
export { FdStream } from './conn/stream.ts'
export type { Received } from './message.ts'
export { describeFd } from './socket/describe.ts'
export { boundSocket, type Protocol, serviceSocket } from './socket/inet.ts'
export type { Credentials } from './socket/options.ts'
export { isOtherEnd } from './socket/peer.ts'
export { readableFrom } from './socket/readable.ts'
export { closeReceived, duplicate, setCloseOnExec } from './socket/unix.ts'
export { connectionsOn } from './wait/accept.ts'
export { Watcher } from './wait/watcher.ts'
export { type WatchSet, watchSet } from './wait/watchset.ts'
