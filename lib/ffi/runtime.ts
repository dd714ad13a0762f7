// Which runtimes this library works in: Node, and no other.
// Read next: lib/ffi/trace.ts.

/**
 * Throws in Bun and Deno. Both run this library as far as sends and receives
 * that need not wait; the first that has to wait would never end.
 *
 * @param versions those of `process`
 * @throws Error in Bun and Deno
 */
export function refuseOtherRuntimes(
  versions: Readonly<Record<string, string | undefined>>,
): void {
  for (const [key, name] of [
    ['bun', 'Bun'],
    ['deno', 'Deno'],
  ] as const) {
    if (versions[key] === undefined) continue
    throw new Error(
      `Expected Node, got ${name} ${versions[key]}: ` +
        'it cannot wait for a socket without reading from it',
    )
  }
}
