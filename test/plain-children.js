// The test runner puts a loader of its own before each Node process that a test
// starts, by NODE_OPTIONS and by what it does in spawn(). There it would count
// what tsx made of our files as covered, so that coverage could not fail, and
// for a short script it takes as long as the script. What a test starts has to
// run as a user's does.

import processOnSpawn from 'process-on-spawn'

processOnSpawn.removeAllListeners()
delete process.env.NODE_OPTIONS
