// As far as the example uses it. The package has declarations of its own, but
// is installed only for those who run this example; these let the project's
// type check pass without it.

declare module 'dbus-native' {
  import type { EventEmitter } from 'node:events'
  import type { Duplex } from 'node:stream'

  export type Message = {
    type?: number
    serial?: number
    replySerial?: number | undefined
    sender?: string | undefined
    destination?: string | undefined
    path?: string
    interface?: string
    member?: string
    signature?: string
    body?: readonly unknown[]
    fds?: number[]
  }

  /** Emits 'message', 'error', 'close'. */
  export interface Connection extends EventEmitter {
    message(message: Message): boolean
    end(): void
    readonly unixFdsAgreed?: boolean
  }

  /** `this` is where the message itself is found, and so its descriptors. */
  export type Reply = (
    this: { message: Message },
    error: Error | null,
    ...body: unknown[]
  ) => void

  export interface MessageBus {
    readonly connection: Connection
    /** Such as `:1.5`, once the bus has given it. */
    readonly name?: string
    nextSerial(): number
    getId(): PromiseLike<string>
    requestName(name: string, flags: number): PromiseLike<number>
    invoke(message: Message, reply: Reply): void
    /** A method is called with the body's values and then the message. */
    exportInterface(
      implementation: Record<string, (...call: unknown[]) => unknown>,
      path: string,
      description: {
        name: string
        methods: Record<string, [string, string, string[], string[]]>
      },
    ): void
  }

  export function createClient(options: { stream: Duplex }): MessageBus
  export const messageType: { readonly methodReturn: number }
}
