// Mutants that no test here can see, each with the reason. They do not count.

export type Left = {
  readonly file: string
  /** What stands there. */
  readonly from: string
  /** What the mutant puts in its place. */
  readonly to: string
  readonly why: string
}

export const left: readonly Left[] = []
