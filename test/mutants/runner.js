// A plugin of Stryker's: its runner of tap's tests, without the coverage that
// this tells. It sees what runs in the test's own process, and mutants that only
// a child or a worker meets would not be tried.

import { declareFactoryPlugin, PluginKind } from '@stryker-mutator/api/plugin'
import { createTapTestRunnerFactory } from '@stryker-mutator/tap-runner'

const createTapRunner = createTapTestRunnerFactory()

createRunner.inject = createTapRunner.inject
function createRunner(injector) {
  const runner = createTapRunner(injector)
  const dryRun = runner.dryRun.bind(runner)
  runner.dryRun = async (options) => {
    const { mutantCoverage: _, ...result } = await dryRun(options)
    return result
  }
  return runner
}

export const strykerPlugins = [
  declareFactoryPlugin(PluginKind.TestRunner, 'without-coverage', createRunner),
]
