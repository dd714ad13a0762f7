// A plugin of Stryker's: what only people read is left as it is. That is the
// text of an error. Its `code`, and all other strings, are changed.

import { declareValuePlugin, PluginKind } from '@stryker-mutator/api/plugin'

export const strykerPlugins = [
  declareValuePlugin(PluginKind.Ignore, 'text', {
    shouldIgnore({ node, parent }) {
      const isError =
        node.type === 'NewExpression' && /Error$/.test(node.callee.name)
      // codedError(code, text, details)
      const isText =
        parent?.type === 'CallExpression' &&
        parent.callee.name === 'codedError' &&
        parent.arguments[1] === node
      return isError || isText ? 'the text of an error' : undefined
    },
  }),
]
