// The one public entry: everything that a program needs, and nothing more.

export { cmsgAlign, cmsgLen, cmsgSpace, unixRights } from './cmsg.ts'
export {
  type ReceivedFds,
  type ReceiveOptions,
  socketpair,
  UnixConn,
} from './conn.ts'
export { type Frame, type FrameOptions, framesOf, sendFrame } from './frames.ts'
export { boundSocket } from './inet.ts'
export {
  connect,
  type ListenOptions,
  listen,
  UnixListener,
} from './listener.ts'
export { canonicalAddress, ListeningSocket } from './listening.ts'
export type { Received } from './message.ts'
export {
  type ControlMessage,
  parseControlMessages,
  parseUnixRights,
} from './parse.ts'
export { describeFd, readableFrom } from './readable.ts'
export { connectionsOn, type Protocol, serviceSocket } from './service.ts'
export type { Credentials } from './socket.ts'
export { duplicate, guard } from './socket.ts'
export { FdStream } from './stream.ts'
export { Watcher } from './watcher.ts'
export { type WatchSet, watchSet } from './watchset.ts'
