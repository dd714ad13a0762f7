// One kind of client, for takeover.ts: several of them, each with a constant
// rate of requests, made and counted by the load generator loadtest. Prints
// "loading" when the measurement begins and its result as JSON at the end.
//
//    takeover-load.ts TARGET keep-alive|close CLIENTS RATE SECONDS
//
// loadtest, because what is measured ends connections politely. It honours
// `Connection: close` (through Node's own Agent, which retries nothing), where
// autocannon 9 goes on writing into the connection and loses that request.

import { Agent, type ClientRequest, type RequestOptions } from 'node:http'

import { fail } from '../lib/script/cli.ts'

export type LoadResult = {
  readonly requests: number
  /** By what went wrong: refused, reset, timed out, not 200. */
  readonly failures: Readonly<Record<string, number>>
  /** Answers by ms, rounded down. */
  readonly histogram: Readonly<Record<number, number>>
  /** Answers by the pid that gave them. */
  readonly servers: Readonly<Record<string, number>>
}

type Finished = { totalRequests: number; histogramMs: Record<number, number> }
type Answer = { statusCode: number; body: string }
type Request = (params: RequestOptions, done: unknown) => ClientRequest
type LoadTest = (options: {
  url: string
  requestsPerSecond: number
  maxRequests: number
  timeout: number
  quiet: true
  requestGenerator: (
    options: unknown,
    params: RequestOptions,
    request: Request,
    done: unknown,
  ) => ClientRequest
  statusCallback: (error: unknown, answer?: Answer) => void
}) => Promise<Finished>

const [target = '', kind, ...numbers] = process.argv.slice(2)
const [clients = 1, rate = 1, seconds = 1] = numbers.map(Number)
const where = target.startsWith('/') ? { socketPath: target } : {}

// One connection each, as long as the server allows; or a new one each time.
const agents = Array.from({ length: clients }, () => {
  return kind === 'keep-alive' && new Agent({ keepAlive: true, maxSockets: 1 })
})

const loadTest = await generator()
await run(1) // what is compiled and connected at first is not measured
console.log('loading')
console.log(JSON.stringify(await run(seconds)))

async function run(seconds: number): Promise<LoadResult> {
  const failures: Record<string, number> = {}
  const servers: Record<string, number> = {}
  const one = (agent: Agent | false) =>
    loadTest({
      url: target.startsWith('/') ? 'http://localhost/' : `http://${target}/`,
      requestsPerSecond: rate,
      maxRequests: rate * seconds,
      timeout: 10_000,
      quiet: true,
      requestGenerator: (_, params, request, done) =>
        request({ ...params, ...where, agent }, done),
      statusCallback: (error, answer) => {
        if (error || answer?.statusCode !== 200)
          add(failures, String(error ?? answer?.statusCode))
        else add(servers, /\d+/.exec(answer.body)?.[0] ?? 'nobody')
      },
    })
  const results = await Promise.all(agents.map(one))
  const histogram: Record<number, number> = {}
  let requests = 0
  for (const { totalRequests, histogramMs } of results) {
    requests += totalRequests
    for (const [ms, count] of Object.entries(histogramMs))
      add(histogram, ms, count)
  }
  return { requests, failures, histogram, servers }
}

function add(counts: Record<string, number>, key: string, by = 1): void {
  counts[key] = (counts[key] ?? 0) + by
}

// By a name that the compiler does not look up: it is installed for this alone.
async function generator(): Promise<LoadTest> {
  const name: string = 'loadtest'
  const found: { loadTest: LoadTest } = await import(name).catch(() =>
    fail('Expected loadtest here: run npm install in bench/ first'),
  )
  return found.loadTest
}
