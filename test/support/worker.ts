// The library in a worker thread of a process of its own. Not a test itself.

import type { Test } from 'tap'

import { run, script, strip } from './processes.ts'

/** Source of a listener that prints a warning, unless it is of node:ffi. */
export const onWarning = `({ name, message }) => {
  if (name !== 'ExperimentalWarning') console.log(message)
}`

/**
 * Runs `body`, in which `lib` is the public interface and `argv` are `args`, in
 * a worker thread of a new process. What it prints, and each warning of the
 * process, are in `stdout`; then comes the worker's exit code.
 */
export function runInWorker(t: Test, body: string, ...args: string[]) {
  const worker = `
    import { workerData } from 'node:worker_threads'
    const [index, ...argv] = workerData
    process.on('warning', ${onWarning})
    const lib = await import(index)
    ${body}`
  const source = `
    import { pathToFileURL } from 'node:url'
    import { Worker } from 'node:worker_threads'
    process.on('warning', ${onWarning})
    const index = pathToFileURL('lib/index.ts').href
    new Worker(${JSON.stringify(worker)}, {
      eval: true,
      execArgv: ${JSON.stringify([...strip, '--input-type=module'])},
      workerData: [index, ...process.argv.slice(1)],
    })
      .on('exit', (code) => console.log(code))`
  return run(t, [...script('--input-type=module', '-e'), source, ...args])
}
