// A plugin of Stryker's: what only people read is left as it is. That is the
// text of an error. Its `code`, and all other strings, are changed.

import { declareValuePlugin, PluginKind } from '@stryker-mutator/api/plugin'

export const strykerPlugins = [
  declareValuePlugin(PluginKind.Ignore, 'text', {
    shouldIgnore({ node }) {
      const isError =
        node.type === 'NewExpression' && /Error$/.test(node.callee.name)
      return isError ? 'the text of an error' : undefined
    },
  }),
]
