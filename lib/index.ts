// The one public entry: everything that a program needs, and nothing more.
// Read next: lib/wait/errors.ts.

// For users of the package: a new TypeScript project has no types of Node's.
/// <reference types="node" preserve="true" />

export {
  type ControlMessage,
  type Credentials,
  cmsgLen,
  cmsgSpace,
  parseControlMessages,
  parseUnixCredentials,
  parseUnixRights,
  SCM_RIGHTS,
  SOL_SOCKET,
  unixCredentials,
  unixRights,
} from './cmsg.ts'
export { pairForChild, socketpair, UnixConn } from './conn/conn.ts'
export { type ConnectOptions, connect } from './conn/connect.ts'
export {
  type Datagram,
  type DatagramOptions,
  type SendOptions,
  UnixDatagram,
} from './conn/datagram.ts'
export {
  type Frame,
  type FrameOptions,
  framesOf,
  sendFrame,
} from './conn/frames.ts'
export type {
  ReceivedFds,
  ReceivedMessage,
  ReceiveOptions,
} from './conn/limits.ts'
export {
  type AcceptOptions,
  type Handler,
  type ListenOptions,
  listen,
  type ServeOptions,
  UnixListener,
} from './conn/listener.ts'
export { canonicalAddress, ListeningSocket } from './conn/listening.ts'
export { FdStream, type FdStreamOptions } from './conn/stream.ts'
export {
  describeFd,
  type FdDescription,
  type FdKind,
} from './socket/describe.ts'
export {
  boundSocket,
  type InetOptions,
  type Protocol,
  serviceSocket,
} from './socket/inet.ts'
export { type MemfdOptions, memfd, pipe } from './socket/memory.ts'
export {
  closeReceived,
  duplicate,
  type SocketOptions,
  setCloseOnExec,
} from './socket/unix.ts'
export {
  type DescriptorStreamOptions,
  duplexFrom,
  readableFrom,
  writableFrom,
} from './stream/open.ts'
export { type ConnectionsOptions, connectionsOn } from './wait/accept.ts'
export { type ErrorCode, errorCodes } from './wait/errors.ts'
export type { BindOptions } from './wait/listen-at.ts'
export { type WaitOptions, waitReadable, waitWritable } from './wait/watch.ts'
