// The picture of the two terminals shows what they show.

import { t } from 'tap'

import { capture, draw } from './pictures.ts'
import { blocksOf, read } from './readme.ts'
import { commandsOf, Numbers } from './readme-session.ts'
import { missing } from './support/missing.ts'
import { plainEnv } from './support/processes.ts'

/** The text of a picture, a line for each line of its terminals. */
function textOf(svg: string): string[] {
  return [...svg.matchAll(/<text x=[^>]*>(.*?)<\/text>/g)].map(
    ([, line = '']) =>
      line
        .replace(/<[^>]*>/g, '')
        .replaceAll('&gt;', '>')
        .replaceAll('&lt;', '<')
        .replaceAll('&amp;', '&'),
  )
}

/** What the README shows of the same. */
function shown(): RegExp {
  const [server, client] = blocksOf(read('README.md'))
  const lines = [server, client].flatMap((block) => {
    const [command] = block ? commandsOf(block) : []
    return [`$ ${command?.text}`, ...(command?.shown ?? [])]
  })
  return new RegExp(`^${new Numbers([]).patternOf(lines)}$`)
}

t.test('terminals.svg shows what the README shows', async (t) => {
  const lines = textOf(read('examples/pictures/terminals.svg'))
  t.match(`${lines.join('\n')}\n`, shown())
})

t.test('a new one, from a run now', { skip: missing('tmux') }, async (t) => {
  const svg = draw(await capture(plainEnv()))
  t.match(`${textOf(svg).join('\n')}\n`, shown())
  t.match(svg, 'prefers-color-scheme: dark')
})
